from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest

from schemas.errors import BadSettings
from sinks.outbox import Outbox
from sinks.outbox_review import OutboxReview
from tests.sinks.incidents import incident

NOW = 1_000_000.0


def keys(outbox: Outbox, destination: str = "ops") -> list[tuple[str, int]]:
    return [(w.incident_id[-1], w.revision) for w in outbox.waiting(destination)]


def test_same_revision_is_accepted_once_also_after_delivery_and_reopening(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = Outbox(path)
    assert outbox.accept([("ops", incident(1)), ("pager", incident(1)), ("ops", incident(1))], NOW) == 2
    outbox.sent("ops", outbox.waiting("ops"), NOW, refreshed=False)
    outbox.close()
    outbox = Outbox(path)
    assert outbox.accept([("ops", incident(1)), ("ops", incident(1, 2))], NOW) == 1
    assert keys(outbox) == [("1", 2)]
    assert keys(outbox, "pager") == [("1", 1)]
    outbox.close()


def test_content_survives_exactly_with_unknown_numbers(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.accept([("ops", incident(expected=float("nan"), sparkline=[1.0, float("inf")]))], NOW)
    got = outbox.incident(outbox.waiting("ops")[0])
    assert got is not None
    assert math.isnan(got.expected)
    assert got.sparkline == [1.0, float("inf")]
    assert got.contributors == incident().contributors
    outbox.close()


def test_all_or_nothing_is_accepted(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    broken = incident(2, severity="dire")
    with pytest.raises(ValueError, match="not in tuple"):
        outbox.accept([("ops", incident(1)), ("ops", broken)], NOW)
    assert keys(outbox) == []
    assert outbox.accept([("ops", incident(1))], NOW) == 1
    outbox.close()


def test_second_process_is_refused(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    with pytest.raises(BadSettings, match="in use"):
        Outbox(tmp_path / "outbox.db")
    outbox.close()
    Outbox(tmp_path / "outbox.db").close()


def test_unreadable_file_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"this is no database" * 1_000)
    outbox = Outbox(path)
    assert outbox.accept([("ops", incident())], NOW) == 1
    outbox.close()
    assert (tmp_path / "outbox.db.unreadable").read_bytes().startswith(b"this is no database")


def test_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(BadSettings, match="format 99"):
        Outbox(path)
    assert path.exists()


def test_delivered_is_forgotten_only_after_its_time_and_waiting_never(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", keep_s=100)
    outbox.accept([("ops", incident(1)), ("ops", incident(2))], NOW)
    outbox.sent("ops", outbox.waiting("ops")[:1], NOW, refreshed=False)
    assert outbox.prune(NOW + 99) == 0
    assert outbox.prune(NOW + 101) == 1
    assert keys(outbox) == [("2", 1)]
    outbox.close()


def test_delivered_content_is_dropped_unless_it_is_sent_again(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    for name in ("ops", "am"):
        outbox.accept([(name, incident(1, r)) for r in (1, 2)], NOW)
        for row in outbox.waiting(name):
            outbox.sent(name, [row], NOW, refreshed=name == "am")
    assert outbox.active("ops", NOW, 300) == []
    assert outbox.active("am", NOW, 300) == [incident(1, 2)]
    outbox.close()


def test_dead_is_listed_and_can_be_revived(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.accept([("ops", incident(1))], NOW)
    outbox.begin(outbox.waiting("ops"))
    outbox.bury(outbox.waiting("ops"), "refused", NOW)
    assert [(d.destination, d.revision, d.attempts, d.error) for d in outbox.dead()] == [("ops", 1, 1, "refused")]
    assert outbox.dead("pager") == []
    assert OutboxReview(tmp_path / "outbox.db").retry("ops", NOW) == {"ops": 1}
    assert outbox.incident(outbox.waiting("ops")[0]) == incident(1)
    outbox.close()


def test_content_of_what_was_given_up_is_bounded_but_not_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.outbox.KEEP_DEAD", 3)
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.accept([("ops", incident(n)) for n in range(5)], NOW)
    outbox.bury(outbox.waiting("ops"), "refused", NOW)
    outbox.prune(NOW)
    assert OutboxReview(tmp_path / "outbox.db").retry(None, NOW) == {"ops": 3}
    assert keys(outbox) == [("2", 1), ("3", 1), ("4", 1)]
    assert outbox.accept([("ops", incident(0))], NOW) == 0
    outbox.close()
