"""Format `request`: our own request events, one JSON object per message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, ClassVar

import msgspec

from schemas.formats.base import Stream
from schemas.formats.json_events import decode_object, json_lines
from schemas.request_event import RequestEvent


class RequestFormat:
    """Request events as `schemas.request_event` describes them. Of duplicate keys the last one wins."""

    name: ClassVar[str] = "request"
    stream: ClassVar[Stream] = "requests"
    decoder: ClassVar[msgspec.json.Decoder[RequestEvent]] = msgspec.json.Decoder(RequestEvent)
    """Built once; the partition reader decodes whole blocks with it."""
    known_fields: ClassVar[frozenset[str]] = frozenset(RequestEvent.__struct_fields__)

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """One message per line."""
        return json_lines(file)

    def decode(self, payload: bytes) -> tuple[RequestEvent]:
        """Decode the one event of a message; see `decode_object` for what is refused and why."""
        return (decode_object(self.decoder, payload),)
