from __future__ import annotations

import pytest

from tests.servers.cache import REQUIRED, missing


def test_a_server_that_cannot_be_had_skips_its_tests_saying_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="npm is not installed"):
        missing("ClickHouse server: npm is not installed")


def test_a_server_that_is_required_fails_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="npm is not installed"):
        missing("ClickHouse server: npm is not installed")
