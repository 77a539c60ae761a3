"""JSON lines: every incident revision on its own line of a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from schemas.errors import BadSettings, DeliveryFailed
from schemas.incident import Incident
from sinks.traits import Traits

BATCH = 500


class _Identity(msgspec.Struct):
    incident_id: str
    revision: int


_decode = msgspec.json.Decoder(_Identity).decode


class JsonLines:
    """Appends incidents to a file, each revision once, on disk when `write` returns.

    What the file already holds is read when it is opened, so a revision that comes again after a restart adds nothing.
    A last line without its end (the process died while writing it) is removed: it was never acknowledged. When the
    file is moved away (log rotation), a new one is begun.

    Parameters
    ----------
    name
        Name of the destination.
    path
        The file; its directory is made if needed.

    Raises
    ------
    BadSettings
        The file cannot be opened.
    """

    def __init__(self, name: str, path: str | Path) -> None:
        self.name = name
        self.traits = Traits(recording=True, batch=BATCH)
        self._path = Path(path)
        self._seen: set[bytes] = set()
        try:
            self._descriptor: int | None = self._open()
        except OSError as error:
            raise BadSettings(f"jsonl `{name}`: cannot write `{path}` ({error.strerror})") from None

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Not through a buffered file: after a failed write its buffer would hold the batch and write it later.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        end = 0
        with open(descriptor, "rb", closefd=False) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(descriptor, end)
                    break
                end += len(line)
                try:
                    row = _decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue  # not a line of ours; it stays
                self._seen.add(_digest(row.incident_id, row.revision))
        return descriptor

    def write(self, rows: Sequence[Incident]) -> None:
        """Append the revisions that the file does not hold yet.

        Raises
        ------
        DeliveryFailed
            The disk is full or gone: retryable. Nothing of the batch is in the file then.
        """
        fresh: dict[bytes, Incident] = {}
        for incident in rows:
            digest = _digest(incident.incident_id, incident.revision)
            if digest not in self._seen:
                fresh[digest] = incident
        if not fresh:
            return
        try:
            descriptor = self._current()
            end = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, b"".join(msgspec.json.encode(incident) + b"\n" for incident in fresh.values()))
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        except OSError as error:
            message = f"jsonl `{self.name}`: cannot write {self._path} ({error.strerror}); will be retried."
            raise DeliveryFailed(message, retryable=True) from None
        self._seen.update(fresh)

    def _current(self) -> int:
        """The file that the path names now: after a rotation, a new one."""
        if self._descriptor is not None:
            here = os.fstat(self._descriptor)
            try:
                there = self._path.stat()
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    return self._descriptor
            except FileNotFoundError:
                pass
            os.close(self._descriptor)
            self._descriptor = None
        self._descriptor = self._open()
        return self._descriptor

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _digest(incident_id: str, revision: int) -> bytes:
    return hashlib.blake2b(f"{incident_id}\n{revision}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
