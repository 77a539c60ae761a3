"""The outbox as an operator looks at it and mends it, beside the process that delivers from it or without one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from schemas.errors import BadSettings
from schemas.incident import SEVERITIES
from sinks.outbox_file import check_format, connect


class Entry(Struct, frozen=True, kw_only=True):
    """One revision that was not delivered. Times are epoch seconds."""

    destination: str
    incident_id: str
    revision: int
    state: str
    severity: str
    delivery: str
    """`waiting`, or `dead`: given up."""
    attempts: int
    accepted_at: float
    next_at: float
    """When it is tried again at the earliest; 0 if it was never tried."""
    error: str | None
    """What went wrong last."""


class OutboxReview:
    """Reads an outbox, and lets what was given up wait again.

    It takes no part in the one-process rule: SQLite keeps its transactions apart from those of the process that
    delivers, which looks into the file at least once a minute.

    Parameters
    ----------
    path
        SQLite file; it must exist.

    Raises
    ------
    BadSettings
        The file is no outbox, or a newer version wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self, destination: str | None = None) -> list[Entry]:
        """What waits and what was given up, in the order of acceptance."""
        with self._open() as db:
            found = db.execute(
                "SELECT destination, incident_id, revision, incident_state, urgency, delivery, attempts, accepted_at,"
                " next_at, error FROM outbox WHERE delivery IN ('waiting', 'dead')"
                " AND (:name IS NULL OR destination = :name) ORDER BY seq",
                {"name": destination},
            ).fetchall()
        return [
            Entry(
                destination=name, incident_id=incident_id, revision=revision, state=state, severity=SEVERITIES[urgency],
                delivery=delivery, attempts=attempts, accepted_at=accepted_at, next_at=next_at, error=error,
            )
            for name, incident_id, revision, state, urgency, delivery, attempts, accepted_at, next_at, error in found
        ]  # fmt: skip

    def retry(self, destination: str | None, now: float) -> dict[str, int]:
        """Let what was given up wait again, as if it were new; returns how many revisions by destination."""
        given_up = "delivery = 'dead' AND body IS NOT NULL AND (:name IS NULL OR destination = :name)"
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                counted = db.execute(
                    f"SELECT destination, count(*) FROM outbox WHERE {given_up} GROUP BY 1 ORDER BY 1",
                    {"name": destination},
                ).fetchall()
                db.execute(
                    "UPDATE outbox SET delivery = 'waiting', attempts = 0, next_at = 0, accepted_at = :now,"
                    f" settled_at = NULL WHERE {given_up}",
                    {"name": destination, "now": now},
                )
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
        return {name: int(n) for name, n in counted}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = connect(self._path)
        try:
            check_format(db, self._path)
            yield db
        except sqlite3.Error as error:
            raise BadSettings(f"outbox: cannot read `{self._path}` ({error})") from None
        finally:
            db.close()
