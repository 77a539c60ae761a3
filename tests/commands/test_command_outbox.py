"""`tidegauge outbox` beside a process that delivers and on a stopped one, with a real receiver behind it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from sinks.delivery import Notifier
from sinks.routing import Router
from sinks.webhook import Webhook
from tests.commands.test_command_line import run
from tests.sinks.incidents import incident
from tests.sinks.receiver import Answer, receiver

WAIT_S = 15.0


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "tidegauge.yaml").write_text(f"state_dir: {tmp_path / 'state'}\n")
    return str(tmp_path / "tidegauge.yaml")


def notifier(tmp_path: Path, **urls: str) -> Notifier:
    sinks = {name: Webhook(name, url) for name, url in urls.items()}
    return Notifier(sinks, Router([], list(sinks)), tmp_path / "state" / "process-0" / "outbox.sqlite")


def listed(capsys: pytest.CaptureFixture[str], config: str, *more: str) -> list[dict[str, Any]]:
    capsys.readouterr()  # what couriers said
    code, out, err = run(capsys, "outbox", "list", "--config", config, *more)
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def test_what_was_given_up_is_listed_and_tried_again_beside_the_process_that_delivers(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.delivery.LONGEST_SLEEP_S", 0.1)
    with receiver(Answer(410, b"gone")) as gone, receiver() as fine:
        it = notifier(tmp_path, gone=gone.url, fine=fine.url)
        it.accept([incident(1), incident(2, severity="critical")])
        assert it.drain(WAIT_S)
        lines = listed(capsys, config)
        assert [(x["process"], x["destination"], x["delivery"], x["severity"]) for x in lines] == [
            ("process-0", "gone", "dead", severity) for severity in ("error", "critical")
        ]
        assert {x["incident_id"] for x in lines} == {incident(n).incident_id for n in (1, 2)}
        assert all("HTTP 410" in x["error"] and x["attempts"] == 1 for x in lines)
        assert listed(capsys, config, "--destination", "fine") == []
        gone.default = Answer(200)
        code, out, _ = run(capsys, "outbox", "retry", "-c", config, "--destination", "gone")
        assert (code, json.loads(out)) == (0, {"process": "process-0", "destination": "gone", "revived": 2})
        assert it.drain(WAIT_S)
        it.close()
        assert (len(gone.requests), len(fine.requests)) == (4, 2)
        assert listed(capsys, config) == []


def test_what_was_given_up_is_tried_again_at_the_next_start_in_its_newest_revision(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver(Answer(410, b"gone")) as gone:
        it = notifier(tmp_path, gone=gone.url)
        for revision, state in ((1, "open"), (2, "resolved")):
            it.accept([incident(1, revision, state)])
            assert it.drain(WAIT_S)
        it.close()
        assert len(listed(capsys, config)) == 2
        assert run(capsys, "outbox", "retry", "--config", config)[0] == 0
        assert [x["delivery"] for x in listed(capsys, config)] == ["waiting", "waiting"]
        gone.requests.clear()
        gone.default = Answer(200)
        it = notifier(tmp_path, gone=gone.url)
        assert it.drain(WAIT_S)
        it.close()
        assert [json.loads(r.body)["revision"] for r in gone.requests] == [2]
    code, out, err = run(capsys, "outbox", "retry", "--config", config)
    assert (code, out) == (0, "")
    assert "nothing was given up" in err


def test_an_outbox_that_is_not_there_or_cannot_be_read_is_said(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "outbox", "list", "--config", config)
    assert code == 2
    assert "Check `state_dir`" in err
    file = tmp_path / "state" / "process-0" / "outbox.sqlite"
    file.parent.mkdir(parents=True)
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    assert "format 99" in run(capsys, "outbox", "list", "--config", config)[2]
    file.write_bytes(b"no database" * 1_000)
    code, _, err = run(capsys, "outbox", "retry", "--config", config)
    assert code == 2
    assert "cannot read" in err
