"""Format `mooncake`: the Mooncake traces (github.com/kvcache-ai/Mooncake, FAST25-release), JSON lines.

References
----------
R. Qin et al. (2025), Mooncake: Trading more storage for less computation, FAST.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Annotated, BinaryIO, ClassVar

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import Stream
from schemas.formats.json_events import decode_object, json_lines
from schemas.request_event import Count, RequestEvent

BLOCK_TOKENS = 512
"""Tokens of one block, of which `hash_ids` names each."""

MAX_PREFIX_BLOCKS = 64
"""Longest prefix that is hashed (32,768 tokens)."""

TRACE_START_MS = 1_735_689_600_000
"""2025-01-01T00:00:00Z stands for millisecond 0 of the trace, which publishes no date; the date here is ours."""

MODEL = "mooncake"
"""Stands for the model behind the trace, which it does not name; no price table knows it."""


class _Row(Struct):
    timestamp: Annotated[int, Meta(ge=0, le=10**12)]
    input_length: Count
    output_length: Count
    hash_ids: list[int] = []


class MooncakeFormat:
    """One line is one request: when it arrived, its input and output tokens, and the ids of its prompt's blocks.

    The trace does not say what was read from a cache, so `cache_read_tokens` stays `None`. Equal ids in equal leading
    positions are a prefix that could have been reused; `prefix_of` makes the one prefix that an event can carry.
    """

    name: ClassVar[str] = "mooncake"
    stream: ClassVar[Stream] = "requests"
    decoder: ClassVar[msgspec.json.Decoder[_Row]] = msgspec.json.Decoder(_Row)

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """One message per line."""
        return json_lines(file)

    def decode(self, payload: bytes) -> tuple[RequestEvent]:
        """Decode one line."""
        row = decode_object(self.decoder, payload)
        prefix_hash, prefix_tokens = prefix_of(row.hash_ids, row.input_length)
        return (
            RequestEvent(
                at=TRACE_START_MS + row.timestamp,
                provider="moonshot_ai",
                model=MODEL,
                status=200,
                input_tokens=row.input_length,
                output_tokens=row.output_length,
                prefix_hash=prefix_hash,
                prefix_tokens=prefix_tokens,
            ),
        )


def prefix_of(hash_ids: Sequence[int], input_tokens: int) -> tuple[str | None, int | None]:
    """Hash and length in tokens of the prefix by which a repeated prompt is recognised.

    It is the longest run of 1, 2, 4, ... 64 leading *full* blocks. An event has one prefix, while every leading run of
    blocks can be reused; powers of two let the growing prompts of one conversation meet. A repeated hash always is a
    true repetition, never the whole of it: of the tokens that a cache of unlimited size could have served, it finds
    54 % in the trace "conversation" and 73 % in "synthetic" (`tests/schemas/test_trace_formats.py`).

    Examples
    --------
    >>> prefix_of([7, 8, 9], 1_100)[1]
    1024
    >>> prefix_of([7, 8, 9], 1_100) == prefix_of([7, 8, 4, 5], 2_040)
    True
    >>> prefix_of([7], 300)
    (None, None)
    """
    full = min(len(hash_ids), input_tokens // BLOCK_TOKENS)
    if full == 0:
        return None, None
    blocks = min(1 << (full.bit_length() - 1), MAX_PREFIX_BLOCKS)
    digest = blake2b(",".join(map(str, hash_ids[:blocks])).encode(), digest_size=16)
    return digest.hexdigest(), blocks * BLOCK_TOKENS
