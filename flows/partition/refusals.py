"""Refusals: what could not be used in a block, how it becomes dead letters, and in which window it is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.block import Block
from schemas.columns import IntArray
from schemas.dead_letter import DeadLetter
from schemas.errors import Reason
from schemas.redaction import redact


@dataclass(slots=True)
class Refusal:
    """A message, or one event of a message, that cannot be used.

    Parameters
    ----------
    message
        Index of the message in the block.
    position
        Index of the event in the message.
    before
        Number of decoded events of the block that come before it.
    reason, detail
        As in the dead letter.
    at_ns
        Event time where it is known.
    """

    message: int
    position: int
    before: int
    reason: Reason
    detail: str
    at_ns: int | None = None


def dead_letters(block: Block, refusals: Sequence[Refusal], highest_ns: Sequence[int | None]) -> list[DeadLetter]:
    """Dead letters in order of their position; `highest_ns` is the partition's highest event time before each."""
    return [
        DeadLetter(
            reason=refusal.reason,
            detail=refusal.detail,
            topic=block.topic,
            partition=block.partition,
            offset=int(block.offsets[refusal.message]),
            position=refusal.position,
            at_ns=refusal.at_ns if refusal.at_ns is not None else (highest or 0),
            payload=redact(block.payloads[refusal.message]),
        )
        for refusal, highest in zip(refusals, highest_ns, strict=True)
    ]


class Rejections:
    """Books dead letters to the window of the partition's highest event time at their position.

    Parameters
    ----------
    window_ns
        Length of a window.
    pending
        Dead letters from before the partition's first event; they go to that event's window.
    """

    def __init__(self, window_ns: int, pending: int = 0) -> None:
        self.window_ns = window_ns
        self.pending = pending

    def book(self, highest_ns: Sequence[int | None], at_ns: IntArray) -> dict[int, int]:
        """Number of dead letters by start of window.

        Parameters
        ----------
        highest_ns
            Per dead letter: the highest event time before it, None before any event.
        at_ns
            Event times of the block's usable events.
        """
        booked: dict[int, int] = {}
        for highest in highest_ns:
            if highest is None:
                self.pending += 1
            else:
                start = highest // self.window_ns * self.window_ns
                booked[start] = booked.get(start, 0) + 1
        if self.pending and len(at_ns):
            start = int(at_ns[0]) // self.window_ns * self.window_ns
            booked[start] = booked.get(start, 0) + self.pending
            self.pending = 0
        return dict(sorted(booked.items()))


def highest_before(counts: IntArray, highest_ns: int | None, running_ns: IntArray) -> list[int | None]:
    """Highest event time before each point of the block.

    Parameters
    ----------
    counts
        Number of usable events of the block before each point.
    highest_ns
        Highest event time before the block, None if there was no event.
    running_ns
        Highest event time after each usable event.
    """
    if not len(counts):
        return []
    reached = running_ns[np.maximum(counts - 1, 0)].tolist() if len(running_ns) else [0] * len(counts)
    return [value if count else highest_ns for value, count in zip(reached, counts.tolist(), strict=True)]
