from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path

import msgspec
import orjson
import pytest

from schemas.errors import BadSettings
from sinks.secrets import Secret


@pytest.fixture
def secret() -> Secret:
    return Secret("hunter2")


def test_secret_prints_as_stars_everywhere(secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("x").warning("%s %r", secret, [secret])
    shown = f"{secret}{secret!r}{secret!s}{secret:>20}{[secret]}{ {'k': secret} }" + "%s" % secret + caplog.text  # noqa: UP031
    assert "hunter2" not in shown
    assert "***" in f"{secret}"
    assert secret.reveal() == "hunter2"


def test_secret_is_not_encoded_pickled_or_copied(secret: Secret) -> None:
    for attempt in (msgspec.json.encode, msgspec.msgpack.encode, orjson.dumps, pickle.dumps, copy.deepcopy, vars, hash):
        with pytest.raises(TypeError) as caught:
            attempt(secret)  # type: ignore[operator]
        assert "hunter2" not in str(caught.value)


def test_secrets_are_equal_by_value(secret: Secret) -> None:
    assert secret == Secret("hunter2") != Secret("hunter3")
    assert secret != "hunter2"


def test_secret_comes_from_value_or_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(" hunter2\n")
    from_file, from_value = Secret.read(None, file, what="url"), Secret.read("hunter2", None, what="url")
    assert from_file == from_value == Secret("hunter2")
    assert Secret.read(None, None, what="url") is None


def test_secret_that_cannot_be_had_stops_the_start(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe")
    for value, file in [
        ("hunter2", empty),
        (None, empty),
        (None, binary),
        (None, tmp_path / "no"),
        ("", None),
        (" ", None),
    ]:
        with pytest.raises(BadSettings) as caught:
            Secret.read(value, file, what="destinations[0].url")
        assert "destinations[0].url" in str(caught.value)
        assert "hunter2" not in str(caught.value)
