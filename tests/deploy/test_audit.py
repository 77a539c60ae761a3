"""`make check` looks for known weaknesses in the dependencies, and says what it could not find out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from deploy.audit import audit

ROOT = Path(__file__).resolve().parents[2]


def said(dependencies: list[dict[str, Any]] | str) -> tuple[int, str]:
    text = dependencies if isinstance(dependencies, str) else json.dumps({"dependencies": dependencies})
    return audit([sys.executable, "-c", f"print({text!r})"])


def test_a_known_weakness_fails_and_is_named() -> None:
    vulns = [{"id": "PYSEC-2026-1", "fix_versions": ["2.0"]}]
    code, words = said([{"name": "a", "version": "1.0", "vulns": vulns}, {"name": "b", "version": "1", "vulns": []}])
    assert code == 1
    assert words.splitlines() == [
        "audit: 2 audited, 1 vulnerable, 0 could not be audited",
        "  a 1.0: PYSEC-2026-1, fixed in 2.0",
    ]


def test_what_the_service_does_not_know_is_said_and_is_no_failure() -> None:
    code, words = said([{"name": "a", "skip_reason": "not found"}, {"name": "b", "version": "1", "vulns": []}])
    assert code == 0
    assert words.startswith("audit: 1 audited, 0 vulnerable, 1 could not be audited (such as a")
    assert len(words.splitlines()) == 1


def test_a_service_that_cannot_be_reached_is_said_and_is_no_failure() -> None:
    for code, words in (said("no json"), said(""), audit(["/does/not/exist"])):
        assert code == 0
        assert words.startswith("audit: NOT DONE")


def test_check_audits() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    check = rules.split("\ncheck:")[1].split("\n\n")[0]
    assert "deploy/audit.py" in check
