"""The engine's recovery store on disk: made once, checked at every start."""

from __future__ import annotations

import os
import pickletools
import sqlite3
from pathlib import Path

import structlog
from bytewax.recovery import RecoveryConfig, init_db_dir

from flows.private_dir import make_private

PART = "part-0.sqlite3"
FLOW = "tidegauge"
"""Name of the dataflow; it begins the names under which steps save."""

_DATA = frozenset(
    {
        "PROTO", "FRAME", "STOP", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MARK", "NONE",
        "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINBYTES",
        "BINBYTES", "BINBYTES8",
        "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE",
        "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
    }
)  # fmt: skip
"""Pickle operations that make plain data; all others look up or call something."""


def open_store(directory: Path, *, owner: bool) -> RecoveryConfig:
    """The store in a directory; made if missing, replaced if it cannot be read.

    Without it every partition begins where `kafka.start` says: rows and incidents keep their identities, so what is
    read a second time replaces what is there.

    Parameters
    ----------
    directory
        Made if missing.
    owner
        Whether this process may make or replace the store: one of a cluster, for it keeps everyone's state. With a
        store in each process, a restart might take an older one.
    """
    make_private(directory)
    part = directory / PART
    if owner:
        why = _trouble(part) if part.exists() else ""
        if why:
            aside = directory / f"{PART}.unreadable"
            for suffix in ("", "-wal", "-shm"):
                if Path(f"{part}{suffix}").exists():
                    os.replace(f"{part}{suffix}", f"{aside}{suffix}")
            structlog.get_logger().error("cold start", component="recovery store", why=why, moved_to=str(aside))
        if not part.exists():
            init_db_dir(directory, 1)  # type: ignore[no-untyped-call]  # Bytewax's compiled part
    return RecoveryConfig(str(directory))  # type: ignore[no-untyped-call]


def saved_keys(directory: Path, step: str) -> set[str]:
    """Keys that a step has saved state for: partitions of a source."""
    try:
        db = sqlite3.connect(f"file:{directory / PART}?mode=ro", uri=True, timeout=10.0)
        try:
            rows = db.execute("SELECT DISTINCT state_key FROM snaps WHERE step_id = ?", (f"{FLOW}.{step}",))
            return {key for (key,) in rows}
        finally:
            db.close()
    except sqlite3.Error:  # there is none yet, or none that can be read
        return set()


def _trouble(part: Path) -> str:
    """What is wrong with a store; empty if nothing is."""
    try:
        db = sqlite3.connect(part, timeout=10.0)
        try:
            (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
            (parts,) = db.execute("SELECT count(*) FROM parts").fetchone()
            for table in ("exs", "fronts", "commits", "snaps"):
                db.execute(f"SELECT count(*) FROM {table}").fetchone()
            foreign = _foreign(db)
        finally:
            db.close()
    except sqlite3.Error as problem:
        return str(problem)
    if answer != "ok":
        return str(answer)
    if foreign:
        return foreign
    return "" if parts == 1 else "it was never finished"


def _foreign(db: sqlite3.Connection) -> str:
    """The first record that is no plain data; empty if there is none.

    The engine unpickles every record, and a pickle may run code. Ours hold numbers and bytes.
    """
    for step, key, content in db.execute("SELECT step_id, state_key, ser_change FROM snaps"):
        if content is None:
            continue
        try:
            if not isinstance(content, bytes):
                raise ValueError("it is no pickle")
            for operation, _, _ in pickletools.genops(content):
                if operation.name not in _DATA:
                    raise ValueError(f"it holds {operation.name}")
        except Exception as problem:  # whatever a damaged or forged record provokes
            return f"the record of {step!s:.80} {key!s:.80} is not one of ours ({problem!s:.200})"
    return ""
