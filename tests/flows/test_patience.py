"""A full disk under the outbox: the flow waits and says so; nothing is skipped, and nothing is taken twice."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from flows.patience import Patient
from schemas.errors import DeliveryFailed
from sinks.delivery import Notifier
from sinks.routing import Router
from tests.sinks.incidents import incident
from tests.sinks.scripted import Scripted, later, never


def test_a_full_disk_makes_the_flow_wait_and_all_is_accepted_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    notifier = Notifier({"ops": Scripted("ops")}, Router([], ["ops"]), path, start=False)
    db = notifier._outbox._db
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count={pages + 2}")  # SQLite's own way to be full
    notified: list[str] = []
    waits: list[float] = []
    waiting = threading.Event()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        notified.append(patient.missing())
        if len(waits) == 40:
            db.execute("PRAGMA max_page_count=1000000")
            waiting.set()

    patient = Patient(notifier.accept, wait=wait)
    with capture_logs() as logs:
        for n in range(20):
            patient.accept([incident(n), incident(100 + n)])
    assert waiting.is_set(), "the disk was never full"
    assert len(waits) == 40
    assert max(waits) == 5.0
    assert "database or disk is full" in notified[0]
    assert patient.missing() == ""
    said = [log["event"] for log in logs]
    assert said[-1] == "incidents are accepted again"
    assert 2 <= len(said) < 6, "once a minute is enough"
    assert notifier._outbox.waiting_count("ops") == 40
    assert notifier.accept([incident(n) for n in range(20)]) == 0
    notifier.close()
    with sqlite3.connect(path) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()


def test_what_cannot_be_mended_by_waiting_is_raised() -> None:
    def refuse(_: object) -> None:
        raise never("no")

    with pytest.raises(DeliveryFailed, match="no"):
        Patient(refuse, wait=lambda _: pytest.fail("waited")).accept([incident()])
    troubles = [later(), later()]

    def busy(_: object) -> None:
        if troubles:
            raise troubles.pop()

    Patient(busy, wait=lambda _: None).accept([incident()])
    assert not troubles
