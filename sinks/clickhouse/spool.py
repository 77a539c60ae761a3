"""Rows that wait for the database, as files: one Arrow file per batch, durable once `store` returns."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import structlog

from schemas.errors import BadSettings, StateUnreadable

log = structlog.get_logger(__name__)

_NAME = re.compile(r"(\d{12})-([a-z_]+)-(\d+)-(\d+)-([0-9a-f]{32})\.arrow\Z")

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


def encode(pieces: list[pa.Table]) -> bytes:
    """Tables of one shape as one Arrow IPC file, as it is stored and as it is sent."""
    table = pa.concat_tables(pieces).unify_dictionaries().combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=_LZ4) as writer:
        writer.write_table(table)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def decode(payload: bytes) -> pa.Table:
    """The table of an Arrow IPC file."""
    return pa.ipc.open_file(pa.BufferReader(payload)).read_all()


def digest_of(payload: bytes) -> str:
    """Identity of a batch by its content: names its file and lets the server recognise a second delivery."""
    return hashlib.blake2b(payload, digest_size=16).hexdigest()


class SpoolFull(Exception):
    """The allowed disk space is used up."""


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """One stored batch."""

    path: Path
    table: str
    rows: int
    size: int
    digest: str


class Spool:
    """Batches in a directory, in the order in which they were stored.

    A file is written under another name, synced, then renamed, so a crash leaves either the whole batch or none that
    counts. Its name carries size and digest of its content: a file that was damaged later is set aside (`.broken`),
    counted and said aloud, never loaded in part.

    Parameters
    ----------
    directory
        Made if missing. One process at a time may use it.
    limit_bytes
        Disk space that stored batches may use.

    Raises
    ------
    BadSettings
        Another process uses the directory.
    """

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.broken_files = 0
        self._directory = directory
        self._next = 0
        self._counting = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise BadSettings(
                f"clickhouse: the spool {directory} is in use by another process; give each its own state_dir"
            ) from None

    def recover(self) -> list[SpoolFile]:
        """Batches that an earlier run left, oldest first. Files of the wrong size are set aside."""
        found = []
        for path in sorted(self._directory.iterdir()):
            if path.suffix == ".partial":
                path.unlink()  # its checkpoint never returned, so the source sends these rows again
                continue
            match = _NAME.match(path.name)
            if not match:
                continue
            self._next = max(self._next, int(match[1]) + 1)
            file = SpoolFile(path, match[2], int(match[3]), int(match[4]), match[5])
            if path.stat().st_size != file.size:
                self.used_bytes += file.size
                self.set_aside(file, "its size is wrong")
                continue
            self.used_bytes += file.size
            found.append(file)
        return found

    def store(self, table: str, rows: int, payload: bytes, digest: str, *, beyond_limit: bool = False) -> SpoolFile:
        """Write one batch; it is durable when this returns.

        Raises
        ------
        SpoolFull
            It would exceed the limit, unless `beyond_limit`.
        OSError
            The disk refuses.
        """
        size = len(payload)
        if self.used_bytes + size > self.limit_bytes and not beyond_limit:
            raise SpoolFull
        path = self._directory / f"{self._next:012d}-{table}-{rows}-{size}-{digest}.arrow"
        partial = path.with_suffix(".partial")
        try:
            with open(partial, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._next += 1
        self._count(size)
        return SpoolFile(path, table, rows, size, digest)

    def read(self, file: SpoolFile) -> bytes:
        """Content of a stored batch.

        Raises
        ------
        StateUnreadable
            It is gone or not what was written.
        """
        try:
            payload = file.path.read_bytes()
        except OSError as error:
            raise StateUnreadable(f"clickhouse: spool file {file.path.name}: {error.strerror}") from error
        if digest_of(payload) != file.digest:
            raise StateUnreadable(f"clickhouse: spool file {file.path.name} is damaged")
        return payload

    def remove(self, file: SpoolFile) -> None:
        """Forget a batch that the database has. Not synced: loading it twice would do no harm."""
        file.path.unlink(missing_ok=True)
        self._count(-file.size)

    def set_aside(self, file: SpoolFile, why: str) -> None:
        """Keep a damaged file for inspection, out of the way."""
        self.broken_files += 1
        self._count(-file.size)
        with contextlib.suppress(OSError):
            file.path.rename(file.path.with_name(file.path.name + ".broken"))
        log.error("clickhouse spool file set aside", file=file.path.name, table=file.table, rows=file.rows, why=why)

    def _count(self, size: int) -> None:
        # One thread stores while another removes.
        with self._counting:
            self.used_bytes += size

    def close(self) -> None:
        """Let another process use the directory."""
        os.close(self._lock)
