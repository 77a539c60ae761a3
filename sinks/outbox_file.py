"""The outbox's SQLite file: its tables, who may open it, and what happens where it cannot be read."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from pathlib import Path
from typing import IO

import structlog

from schemas.errors import BadSettings

FORMAT = 1
BUSY_S = 10.0
"""How long a transaction waits for one of another process."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    incident_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    incident_state TEXT NOT NULL,
    urgency INTEGER NOT NULL,
    -- waiting | sent | superseded | unneeded | dead
    delivery TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL DEFAULT 0,
    accepted_at REAL NOT NULL,
    settled_at REAL,
    error TEXT,
    body BLOB,
    UNIQUE (destination, incident_id, revision)
);
CREATE INDEX IF NOT EXISTS outbox_by_delivery ON outbox (destination, delivery, seq);
CREATE INDEX IF NOT EXISTS outbox_by_incident ON outbox (incident_id);
CREATE TABLE IF NOT EXISTS pauses (destination TEXT PRIMARY KEY, until REAL NOT NULL, failures INTEGER NOT NULL);
"""

_log = structlog.get_logger("tidegauge.outbox")


class OutboxFile:
    """The file, open for the one process that delivers from it.

    Parameters
    ----------
    path
        SQLite file; `<path>.lock` beside it keeps a second process from delivering the same rows.

    Raises
    ------
    BadSettings
        Another process has it open, it was written by a newer version, or the directory cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._owner: IO[str] = open(f"{self._path}.lock", "a")  # noqa: SIM115  # held until close
        except OSError as error:
            raise BadSettings(f"outbox: cannot write `{path}` ({error.strerror})") from None
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._owner.close()
            raise BadSettings(f"outbox: `{path}` is in use; give every process a `state_dir` of its own") from None
        self._readers = threading.local()
        self._opened: list[sqlite3.Connection] = []
        try:
            self.db = self._connect()
        except BaseException:
            self._owner.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise BadSettings(f"outbox: cannot open `{self._path}` ({error})") from None
            # Alerts of the future matter more than an unreadable past; the file stays for a look at it.
            aside = self._path.with_name(f"{self._path.name}.unreadable")
            for suffix in ("", "-wal", "-shm"):
                if os.path.exists(f"{self._path}{suffix}"):
                    os.replace(f"{self._path}{suffix}", f"{aside}{suffix}")
            _log.error("outbox unreadable, starting empty", moved_to=str(aside), error=str(error))
            return self._open()

    def _open(self) -> sqlite3.Connection:
        db = connect(self._path)
        try:
            check_format(db, self._path)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_SCHEMA)
            db.execute(f"PRAGMA user_version={FORMAT}")
        except BaseException:
            db.close()
            raise
        return db

    def reader(self) -> sqlite3.Connection:
        """A connection of this thread's own, which sees what is committed: long queries hold up nobody."""
        db: sqlite3.Connection | None = getattr(self._readers, "db", None)
        if db is None:
            db = self._readers.db = connect(self._path)
            self._opened.append(db)
        return db

    def close(self) -> None:
        """Close the file and let others open it."""
        for reader in self._opened:
            reader.close()
        self.db.close()
        self._owner.close()


def connect(path: Path) -> sqlite3.Connection:
    """Open the database, whoever delivers from it; transactions are begun and ended by hand."""
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=BUSY_S)


def check_format(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that this version cannot read.

    Raises
    ------
    BadSettings
        A newer version wrote it.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise BadSettings(f"outbox: `{path}` is format {version}, this version reads {FORMAT}; upgrade")
