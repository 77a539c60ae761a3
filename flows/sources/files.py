"""Files as a source: every file is one partition, its lines are the messages."""

from __future__ import annotations

import gzip
import itertools
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from flows.partition import GpuPartition, RequestPartition
from flows.sources.item import Item
from flows.windows.watermark import AFTER_ALL
from schemas.block import NO_TIMESTAMP, Block
from schemas.errors import BadSettings, TidegaugeError
from schemas.formats.base import Format

MAX_SKEW_NS = 600 * 1_000_000_000
"""How far (in event time) one file may be read ahead of another, so that little has to be held in memory."""


_DAMAGED = (EOFError, OSError, zlib.error)
"""What reading a file can raise; gzip says `EOFError` where one breaks off."""


@dataclass(frozen=True)
class ReplayFile:
    """One file to replay.

    Parameters
    ----------
    path
        File name; `.gz` is decompressed, `-` is standard input.
    format
        How its lines are read.
    number
        Position in the command line: the partition number.
    """

    path: str
    format: Format
    number: int

    @property
    def partition(self) -> str:
        """Name of the file as a partition."""
        return f"{self.topic}/{self.number}"

    @property
    def topic(self) -> str:
        """Name of the file without its folder."""
        return "stdin" if self.path == "-" else Path(self.path).name

    def open(self) -> BinaryIO:
        """The decompressed content.

        Raises
        ------
        BadSettings
            The file cannot be opened.
        """
        try:
            if self.path == "-":
                return sys.stdin.buffer
            if self.path.endswith(".gz"):
                return cast(BinaryIO, gzip.open(self.path, "rb"))
            return Path(self.path).open("rb")
        except OSError as problem:
            raise BadSettings(f"{self.path}: {problem.strerror}. Name an existing file.") from problem

    def messages(self) -> tuple[BinaryIO, Iterator[bytes]]:
        """The opened file and its messages; a header has been checked.

        Raises
        ------
        BadSettings
            The file cannot be opened, or its beginning shows that it is of another format.
        """
        stream = self.open()
        try:
            if self.path.endswith(".gz"):
                cast(gzip.GzipFile, stream).peek(1)  # a file that is no gzip shows here
            return stream, self.format.lines(stream)
        except _DAMAGED as problem:
            stream.close()
            raise BadSettings(f"{self.path}: not readable ({problem}). Is it what its name says?") from problem
        except BadSettings as problem:
            stream.close()
            raise BadSettings(f"{self.path}: {problem}") from problem


MakePartition = Callable[[str, int, Format, bytes | None], RequestPartition | GpuPartition]
"""Builds the decoder of one partition: topic, partition number, format, saved state."""


class _Pace:
    """Keeps several files at about the same event time.

    Parameters
    ----------
    speed
        Event seconds per second of real time; None is as fast as possible.
    """

    def __init__(self, speed: float | None) -> None:
        self.at: dict[str, int] = {}
        self.speed = speed
        self.started: tuple[datetime, int] | None = None

    def wait(self, partition: str) -> bool:
        own = self.at.get(partition)
        return own is not None and own > min(self.at.values()) + MAX_SKEW_NS

    def due(self, watermark_ns: int) -> datetime | None:
        """When, in real time, the event time is reached; None at full speed."""
        if self.speed is None or watermark_ns <= 0:
            return None
        now = datetime.now(UTC)
        if self.started is None:
            self.started = (now, watermark_ns)
        begun, first_ns = self.started
        return begun + timedelta(seconds=(watermark_ns - first_ns) / 1e9 / self.speed)


class FileSource(FixedPartitionedSource[Item[Any], Any]):
    """Reads files block by block. Opens them all at once, so that what is wrong shows before anything moves.

    Parameters
    ----------
    files
        What to read; all of one stream.
    make
        Builds each file's decoder.
    block_messages
        Lines per block.
    speed
        Event seconds per second of real time; None is as fast as possible.

    Raises
    ------
    BadSettings
        A file cannot be opened, or is of another format.
    """

    def __init__(
        self, files: Sequence[ReplayFile], make: MakePartition, *, block_messages: int, speed: float | None = None
    ) -> None:
        self.files = {f.partition: f for f in files}
        self.make = make
        self.block_messages = block_messages
        self.pace = _Pace(speed)
        self.opened = {name: f.messages() for name, f in self.files.items()}

    def list_parts(self) -> list[str]:
        """Names of the files as partitions."""
        return list(self.files)

    def build_part(self, step_id: str, for_part: str, resume_state: Any | None) -> _FilePart:
        """Read one file, from the saved position if there is one."""
        opened = self.opened.pop(for_part, None) or self.files[for_part].messages()
        return _FilePart(self.files[for_part], opened, self.make, self.block_messages, self.pace, resume_state)


class _FilePart(StatefulSourcePartition[Item[Any], Any]):
    def __init__(
        self,
        file: ReplayFile,
        opened: tuple[BinaryIO, Iterator[bytes]],
        make: MakePartition,
        block_messages: int,
        pace: _Pace,
        resume: Any | None,
    ) -> None:
        self.file = file
        self.block_messages = block_messages
        self.pace = pace
        self.offset: int
        self.offset, state = resume if resume is not None else (0, None)
        self.decoder = make(file.topic, file.number, file.format, state)
        self.stream, self.lines = opened
        for _ in itertools.islice(self.lines, self.offset):
            pass
        self.ended = False
        self.awake: datetime | None = None
        pace.at.setdefault(file.partition, -(2**62))

    def next_batch(self) -> list[Item[Any]]:
        self.awake = None
        if self.ended:
            raise StopIteration
        if self.pace.wait(self.file.partition):
            self.awake = datetime.now(UTC) + timedelta(milliseconds=1)
            return []
        payloads = self._read()
        if not payloads:
            self.ended = True
            self.pace.at.pop(self.file.partition, None)
            return [Item(self.file.partition, None, AFTER_ALL)]
        n = len(payloads)
        offsets = range(self.offset, self.offset + n)
        batch = self.decoder.feed(Block(self.file.topic, self.file.number, offsets, payloads, [NO_TIMESTAMP] * n))
        self.offset += n
        self.pace.at[self.file.partition] = batch.watermark_ns
        self.awake = self.pace.due(batch.watermark_ns)
        return [Item(self.file.partition, batch, batch.watermark_ns)]

    def _read(self) -> list[bytes]:
        payloads: list[bytes] = []
        try:
            payloads.extend(itertools.islice(self.lines, self.block_messages))
        except _DAMAGED as problem:
            read = self.offset + len(payloads)
            raise TidegaugeError(f"{self.file.path}: unreadable after message {read} ({problem}).") from problem
        return payloads

    def next_awake(self) -> datetime | None:
        return self.awake

    def snapshot(self) -> Any:
        return self.offset, self.decoder.snapshot()

    def close(self) -> None:
        if self.file.path != "-":
            self.stream.close()
