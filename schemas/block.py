"""What flows between the source and the decoder: a block of raw messages of one partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NO_TIMESTAMP = -1
"""Kafka timestamp of a message that has none (a line of a file)."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive raw messages of one partition (a topic's partition, or a file).

    Parameters
    ----------
    topic, partition
        Where the messages come from. For a file, `topic` is its name.
    offsets
        Position of each message (a file's line number, counted from 0).
    payloads
        The messages; None is a tombstone.
    timestamps_ms
        Kafka timestamp of each message, or `NO_TIMESTAMP`.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    payloads: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
