"""The outbox: what has to be delivered, on disk, until it is delivered or given up.

One SQLite table, one row per (destination, incident, revision). Accepting the same revision again changes nothing, also
long after it was delivered, so a replay after a crash sends nothing twice.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.incident import SEVERITIES, Incident
from sinks.outbox_file import OutboxFile
from sinks.schedule import MAX_RETRY_AFTER_S, MAX_WAIT_S, Waiting

KEEP_S = 30 * 86_400.0
KEEP_DEAD = 10_000
"""So many revisions that a destination gave up can be revived."""

_WAITING = """
SELECT seq, incident_id, revision, incident_state, urgency, attempts, next_at, accepted_at,
    (SELECT coalesce(max(revision), 0) FROM outbox o WHERE o.destination = w.destination
        AND o.incident_id = w.incident_id AND o.delivery IN ('sent', 'dead', 'unneeded')),
    EXISTS (SELECT 1 FROM outbox o WHERE o.destination = w.destination AND o.incident_id = w.incident_id
        AND o.revision < w.revision AND o.attempts > 0)
FROM outbox w WHERE destination = :name AND delivery = 'waiting'
ORDER BY CASE WHEN :by_urgency THEN urgency ELSE 0 END, seq LIMIT :limit
"""

# MessagePack and not JSON: it keeps NaN ("expected value unknown"), which JSON would turn into null.
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Incident).decode


class Dead(NamedTuple):
    """A revision that was given up."""

    destination: str
    incident_id: str
    revision: int
    attempts: int
    error: str


class Outbox:
    """Durable memory of deliveries. Every method is one transaction, on disk when it returns; safe among threads.

    Parameters
    ----------
    path
        SQLite file; `<path>.lock` beside it keeps a second process from delivering the same rows.
    keep_s
        Seconds for which delivered revisions are remembered, so that accepting them again sends nothing.

    Raises
    ------
    BadSettings
        Another process has it open, it was written by a newer version, or the directory cannot be written.
    """

    def __init__(self, path: str | Path, *, keep_s: float = KEEP_S) -> None:
        self._keep_s = keep_s
        self._lock = threading.RLock()
        self._file = OutboxFile(path)
        self._db = self._file.db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def right_times(self, now: float) -> None:
        """Bring times that lie too far ahead back to now: they were noted by a clock that has been set back since."""
        with self._transaction() as db:
            db.execute("UPDATE outbox SET next_at = ? WHERE next_at > ?", (now, now + MAX_WAIT_S))
            db.execute("UPDATE outbox SET accepted_at = ? WHERE accepted_at > ?", (now, now))
            db.execute("UPDATE outbox SET settled_at = ? WHERE settled_at > ?", (now, now))
            db.execute("UPDATE pauses SET until = ? WHERE until > ?", (now, now + MAX_RETRY_AFTER_S))

    def accept(self, items: Iterable[tuple[str, Incident]], now: float) -> int:
        """Take responsibility for (destination, incident) pairs; all of them or, on an error, none.

        Returns
        -------
        int
            How many were new.
        """
        with self._transaction() as db:
            before = db.total_changes
            db.executemany(
                "INSERT OR IGNORE INTO outbox (destination, incident_id, revision, incident_state, urgency,"
                " accepted_at, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (name, i.incident_id, i.revision, i.state, SEVERITIES.index(i.severity), now, _encode(i))
                    for name, i in items
                ),
            )
            return db.total_changes - before

    def destinations_of(self, incident_id: str) -> list[str]:
        """Destinations that any revision of an incident was accepted for."""
        with self._lock:
            found = self._db.execute(
                "SELECT DISTINCT destination FROM outbox WHERE incident_id = ? ORDER BY destination", (incident_id,)
            )
            return [name for (name,) in found]

    def waiting(self, destination: str, limit: int = -1) -> list[Waiting]:
        """Undelivered revisions in the order of acceptance; -1 is all of them."""
        return self._rows(destination, limit, by_urgency=False)

    def least(self, destination: str, limit: int, *, by_urgency: bool) -> list[Waiting]:
        """Undelivered revisions that are given up first: the oldest ones, the least severe before them if wanted."""
        return self._rows(destination, limit, by_urgency=by_urgency)

    def _rows(self, destination: str, limit: int, *, by_urgency: bool) -> list[Waiting]:
        values = {"name": destination, "limit": limit, "by_urgency": by_urgency}
        rows = self._file.reader().execute(_WAITING, values).fetchall()
        return [Waiting._make((*row[:-1], bool(row[-1]))) for row in rows]

    def waiting_count(self, destination: str) -> int:
        """How many revisions wait."""
        query = "SELECT count(*) FROM outbox WHERE destination = ? AND delivery = 'waiting'"
        (n,) = self._file.reader().execute(query, (destination,)).fetchone()
        return int(n)

    def incident(self, row: Waiting) -> Incident | None:
        """Content of a waiting revision; None if it cannot be read."""
        with self._lock:
            found = self._db.execute("SELECT body FROM outbox WHERE seq = ?", (row.seq,)).fetchone()
        return _read(found[0]) if found else None

    def begin(self, rows: Sequence[Waiting]) -> None:
        """Note an attempt before it is made: after a crash the receiver may know what we have no answer for."""
        with self._transaction() as db:
            db.executemany("UPDATE outbox SET attempts = attempts + 1 WHERE seq = ?", [(r.seq,) for r in rows])

    def sent(self, destination: str, rows: Sequence[Waiting], now: float, *, refreshed: bool) -> None:
        """Note success, and end a pause of the destination. `refreshed` keeps the newest content, to send it again."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE outbox SET delivery = 'sent', settled_at = ?, error = NULL WHERE seq = ?",
                [(now, r.seq) for r in rows],
            )
            keys = [(destination, r.incident_id, r.revision + (not refreshed)) for r in rows]
            db.executemany(
                "UPDATE outbox SET body = NULL WHERE destination = ? AND incident_id = ? AND revision < ?"
                " AND delivery = 'sent'",
                keys,
            )
            db.execute("DELETE FROM pauses WHERE destination = ?", (destination,))

    def settle(self, rows: Sequence[Waiting], delivery: str, now: float) -> None:
        """Note revisions that are never sent: `superseded` or `unneeded`."""
        if rows:
            with self._transaction() as db:
                db.executemany(
                    "UPDATE outbox SET delivery = ?, settled_at = ?, body = NULL WHERE seq = ?",
                    [(delivery, now, r.seq) for r in rows],
                )

    def failed(
        self, destination: str, next_at: Sequence[tuple[Waiting, float]], error: str, pause: tuple[float, int] | None
    ) -> None:
        """Note a failed attempt: when each revision may be tried again, and until when the destination rests."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE outbox SET next_at = ?, error = ? WHERE seq = ?", [(at, error, r.seq) for r, at in next_at]
            )
            if pause is not None:
                db.execute("INSERT OR REPLACE INTO pauses VALUES (?, ?, ?)", (destination, *pause))

    def bury(self, rows: Sequence[Waiting], error: str, now: float) -> None:
        """Give revisions up. Their content stays, for `OutboxReview.retry`."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE outbox SET delivery = 'dead', settled_at = ?, error = ? WHERE seq = ?",
                [(now, error, r.seq) for r in rows],
            )

    def dead(self, destination: str | None = None) -> list[Dead]:
        """What was given up, oldest first."""
        with self._lock:
            found = self._db.execute(
                "SELECT destination, incident_id, revision, attempts, coalesce(error, '') FROM outbox"
                " WHERE delivery = 'dead' AND (:name IS NULL OR destination = :name) ORDER BY seq",
                {"name": destination},
            )
            return [Dead(*row) for row in found]

    def pause(self, destination: str) -> tuple[float, int]:
        """Until when (epoch seconds) a destination rests, and how often it failed in succession; (0, 0) if neither."""
        with self._lock:
            found = self._db.execute(
                "SELECT until, failures FROM pauses WHERE destination = ?", (destination,)
            ).fetchone()
        return (float(found[0]), int(found[1])) if found else (0.0, 0)

    def last_sent_at(self, destination: str) -> float | None:
        """Epoch seconds of the last success of a destination, as far as it is remembered."""
        with self._lock:
            query = "SELECT max(settled_at) FROM outbox WHERE destination = ? AND delivery = 'sent'"
            (at,) = self._db.execute(query, (destination,)).fetchone()
        return None if at is None else float(at)

    def active(self, destination: str, now: float, resolved_for_s: float) -> list[Incident]:
        """Newest sent revision of every incident that is open, or was reported resolved less than so long ago.

        What was not revised for `keep_s` is taken for forgotten and drops out too.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE outbox SET body = NULL WHERE destination = ? AND delivery = 'sent' AND body IS NOT NULL"
                " AND (settled_at < ? OR incident_state = 'resolved' AND settled_at < ?)",
                (destination, now - self._keep_s, now - resolved_for_s),
            )
            # Not those whose newer revision may have arrived without our knowing: an old one must not follow it. One
            # that was given up counts only if it was the end: an open incident must not be forgotten for it.
            found = db.execute(
                "SELECT body FROM outbox s WHERE destination = ? AND delivery = 'sent' AND body IS NOT NULL"
                " AND NOT EXISTS (SELECT 1 FROM outbox w WHERE w.destination = s.destination AND"
                " w.incident_id = s.incident_id AND w.revision > s.revision AND w.attempts > 0"
                " AND (w.delivery <> 'dead' OR w.incident_state = 'resolved')) ORDER BY seq",
                (destination,),
            ).fetchall()
        return [incident for (body,) in found if (incident := _read(body)) is not None]

    def counts(self) -> dict[str, dict[str, int]]:
        """Rows by destination and delivery (`waiting`, `sent`, `superseded`, `unneeded`, `dead`)."""
        counted: dict[str, dict[str, int]] = {}
        with self._lock:
            query = "SELECT destination, delivery, count(*) FROM outbox GROUP BY 1, 2 ORDER BY 1, 2"
            for destination, delivery, n in self._db.execute(query):
                counted.setdefault(destination, {})[delivery] = n
        return counted

    def oldest_waiting_at(self, destination: str) -> float | None:
        """Epoch seconds at which the oldest waiting revision was accepted."""
        with self._lock:
            query = "SELECT min(accepted_at) FROM outbox WHERE destination = ? AND delivery = 'waiting'"
            (at,) = self._db.execute(query, (destination,)).fetchone()
        return None if at is None else float(at)

    def idle(self, destinations: Sequence[str]) -> bool:
        """Whether nothing waits for any of these destinations."""
        with self._lock:
            query = "SELECT 1 FROM outbox WHERE destination = ? AND delivery = 'waiting' LIMIT 1"
            return not any(self._db.execute(query, (name,)).fetchone() for name in destinations)

    def prune(self, now: float) -> int:
        """Forget what was settled more than `keep_s` ago; returns how many revisions.

        Of what was given up, the newest `KEEP_DEAD` keep their content; all keep their identity.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE outbox SET body = NULL WHERE seq IN (SELECT seq FROM (SELECT seq, row_number() OVER"
                " (PARTITION BY destination ORDER BY seq DESC) AS place FROM outbox WHERE delivery = 'dead'"
                " AND body IS NOT NULL) WHERE place > ?)",
                (KEEP_DEAD,),
            )
            return db.execute(
                "DELETE FROM outbox WHERE delivery <> 'waiting' AND settled_at < ?", (now - self._keep_s,)
            ).rowcount

    def close(self) -> None:
        """Close the file and let others open it."""
        with self._lock:
            self._file.close()


def _read(body: bytes | None) -> Incident | None:
    try:
        return None if body is None else _decode(body)
    except (msgspec.MsgspecError, TypeError):
        return None
