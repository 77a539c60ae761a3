"""What request and GPU partitions share: refusing rows, lateness, dead letters and their booking, the next offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from flows.partition.columns import Filter
from flows.partition.lateness import Progress, clock_ahead
from flows.partition.reading import Piece
from flows.partition.refusals import Refusal, Rejections, dead_letters, highest_before
from schemas.block import Block
from schemas.columns import TOO_LATE, IntArray
from schemas.dead_letter import DeadLetter
from schemas.errors import BadEvent, Reason
from schemas.timestamps import all_to_ns

NOTHING_READ = -1
"""Next offset of a partition that was not read yet."""

AHEAD = "`at` lies further ahead of the message's Kafka timestamp than allowed"
LATER = "the event's window closed longer ago than the allowed lateness; the raw row is kept"


class SavedPosition(Struct, array_like=True):
    """State that does not depend on what the events say."""

    offset: int
    highest_ns: int | None
    pending: int


@dataclass(slots=True)
class Judged:
    """What the shared part finds out about a block's usable events."""

    lateness: npt.NDArray[np.uint8]
    running_ns: IntArray
    dead: list[DeadLetter]
    rejected: dict[int, int]


class Rows:
    """Places of the decoded events of one block, and which of them are refused."""

    def __init__(self, block: Block, max_clock_ahead_ns: int) -> None:
        self.block = block
        self.max_clock_ahead_ns = max_clock_ahead_ns
        self.timestamps_ms = np.asarray(block.timestamps_ms, dtype=np.int64)
        self.refusals: list[Refusal] = []
        self._at: list[IntArray] = []
        self._messages: list[IntArray] = []
        self._positions: list[IntArray] = []
        self._refused: list[int] = []
        self._count = 0

    def add(self, piece: Piece[Any], at: list[Any], refused: dict[int, tuple[Reason, str]]) -> None:
        """Append a piece's rows.

        Parameters
        ----------
        piece
            The decoded events.
        at
            Their times, as decoded.
        refused
            By row of the piece: why it cannot be used, apart from its time. A wrong time goes before.
        """
        at_ns, bad = all_to_ns(at)
        wrong: dict[int, tuple[Reason, str]] = dict(refused)
        if self.max_clock_ahead_ns >= 0 and len(at_ns):
            ahead = clock_ahead(at_ns, self.timestamps_ms[piece.messages], self.max_clock_ahead_ns)
            wrong.update((row, (Reason.CLOCK_AHEAD, AHEAD)) for row in np.flatnonzero(ahead).tolist())
        wrong.update((row, _of(error)) for row, error in bad.items())
        for row, (reason, detail) in sorted(wrong.items()):
            self._refused.append(self._count + row)
            self.refusals.append(
                Refusal(
                    message=int(piece.messages[row]),
                    position=int(piece.positions[row]),
                    before=self._count + row,
                    reason=reason,
                    detail=detail,
                    at_ns=None if row in bad else int(at_ns[row]),
                )
            )
        self._at.append(at_ns)
        self._messages.append(piece.messages)
        self._positions.append(piece.positions)
        self._count += len(at_ns)

    def finish(self) -> Filter:
        """Which rows are kept; afterwards the columns below hold only those."""
        none = [np.zeros(0, dtype=np.int64)]
        self.at_ns: IntArray = np.concatenate(self._at or none)
        self.messages: IntArray = np.concatenate(self._messages or none)
        self.positions: IntArray = np.concatenate(self._positions or none)
        keep: Filter = None
        if self._refused:
            keep = np.ones(self._count, dtype=np.bool_)
            keep[self._refused] = False
            usable_before = np.concatenate(([0], np.cumsum(keep)))
            for refusal in self.refusals:
                refusal.before = int(usable_before[refusal.before])
            self.at_ns, self.messages, self.positions = self.at_ns[keep], self.messages[keep], self.positions[keep]
        self.offsets: IntArray = np.asarray(self.block.offsets, dtype=np.int64)[self.messages]
        return keep


class Position:
    """Event-time state of one partition.

    Parameters
    ----------
    progress
        Watermark and lateness.
    rejections
        Where dead letters are counted.
    offset
        Next offset to read, `NOTHING_READ` before any.
    """

    def __init__(self, progress: Progress, rejections: Rejections, offset: int = NOTHING_READ) -> None:
        self.progress = progress
        self.rejections = rejections
        self.offset = offset

    def save(self) -> SavedPosition:
        """State for a restart."""
        return SavedPosition(self.offset, self.progress.highest_ns, self.rejections.pending)

    def restore(self, saved: SavedPosition) -> None:
        """Continue where `save` was called."""
        self.offset = saved.offset
        self.progress.highest_ns = saved.highest_ns
        self.rejections.pending = saved.pending

    def judge(self, rows: Rows) -> Judged:
        """Take in a block's usable events and refusals."""
        before_block = self.progress.highest_ns
        lateness, running = self.progress.advance(rows.at_ns)
        refusals = rows.refusals
        for row in np.flatnonzero(lateness == TOO_LATE).tolist():
            message, position = int(rows.messages[row]), int(rows.positions[row])
            refusals.append(Refusal(message, position, row, Reason.TOO_LATE, LATER, int(rows.at_ns[row])))
        refusals.sort(key=lambda refusal: (refusal.message, refusal.position))
        counts = np.fromiter((refusal.before for refusal in refusals), dtype=np.int64, count=len(refusals))
        highest = highest_before(counts, before_block, running)
        dead = dead_letters(rows.block, refusals, highest)
        if len(rows.block.offsets):
            self.offset = int(rows.block.offsets[-1]) + 1
        return Judged(lateness, running, dead, self.rejections.book(highest, rows.at_ns))


def _of(error: BadEvent) -> tuple[Reason, str]:
    return error.reason, error.detail
