"""What an input format is: one message in, typed events out.

Adding a format is one file beside this one, its test, and one line in `schemas.formats.FORMATS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, ClassVar, Literal, Protocol

from schemas.gpu_event import GpuEvent
from schemas.request_event import RequestEvent

Stream = Literal["requests", "gpus"]


class Format(Protocol):
    """Turns raw messages of one kind into events. Holds no state between messages, so a replay can start anywhere."""

    name: ClassVar[str]
    """As written after `--format` and in the settings."""
    stream: ClassVar[Stream]
    """Which flow its events enter."""

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Split an opened (decompressed) file into messages; a CSV format drops its header here, after checking it.

        Raises
        ------
        BadSettings
            The file plainly is not of this format (for instance another header).
        """
        ...

    def decode(self, payload: bytes) -> Iterable[RequestEvent] | Iterable[GpuEvent]:
        """Events of one message, in order; empty if it holds none of interest.

        Raises
        ------
        BadEvent
            The whole message cannot be used.
        """
        ...
