"""Format `gpu`: our own GPU samples, one JSON object per message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, ClassVar

import msgspec

from schemas.errors import BadEvent, Reason
from schemas.formats.base import Stream
from schemas.formats.json_events import decode_object, json_lines
from schemas.gpu_event import GpuEvent

NO_GPU_IDENTITY = "Object missing required field `gpu_uuid` or `gpu_index`"
"""Detail of the refusal of a sample that does not say which GPU it is of."""


class GpuFormat:
    """GPU samples as `schemas.gpu_event` describes them. Of duplicate keys the last one wins."""

    name: ClassVar[str] = "gpu"
    stream: ClassVar[Stream] = "gpus"
    decoder: ClassVar[msgspec.json.Decoder[GpuEvent]] = msgspec.json.Decoder(GpuEvent)
    """Built once; the partition reader decodes whole blocks with it."""
    known_fields: ClassVar[frozenset[str]] = frozenset(GpuEvent.__struct_fields__)

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """One message per line."""
        return json_lines(file)

    def decode(self, payload: bytes) -> tuple[GpuEvent]:
        """Decode the one sample of a message; see `decode_object` for what is refused and why."""
        event = decode_object(self.decoder, payload)
        if not event.gpu_uuid and event.gpu_index is None:
            raise BadEvent(Reason.MISSING_FIELD, NO_GPU_IDENTITY)
        return (event,)
