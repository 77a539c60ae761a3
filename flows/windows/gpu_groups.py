"""Samples in the order of event time per GPU, and how much time each speaks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flows.windows.gpu_bank import NEVER
from flows.windows.gpu_samples import GpuSamples
from schemas.columns import IntArray

BoolArray = npt.NDArray[np.bool_]


class Groups:
    """Runs of equal slots in sorted samples, with the forward fills that everything here is made of."""

    def __init__(self, slot: IntArray) -> None:
        n = len(slot)
        first = np.r_[True, slot[1:] != slot[:-1]]
        self.starts = np.flatnonzero(first)
        self.ends = np.r_[self.starts[1:], n] - 1
        self.slots = slot[self.starts]
        self.gid = np.cumsum(first) - 1
        self._number = np.arange(n)
        self._floor = self.starts[self.gid]

    def last(self, reported: BoolArray) -> IntArray:
        """Number of the latest reporting sample of the group up to each sample, or -1."""
        at = np.maximum.accumulate(np.where(reported, self._number, -1))
        return np.where(at >= self._floor, at, -1)

    def last_before(self, reported: BoolArray) -> IntArray:
        """The same, before each sample."""
        at = np.r_[-1, np.maximum.accumulate(np.where(reported, self._number, -1))[:-1]]
        return np.where(at >= self._floor, at, -1)

    def add(self, values: npt.NDArray[np.integer] | BoolArray) -> IntArray:
        """Sum per group."""
        return np.add.reduceat(values.astype(np.int64), self.starts)

    def mean(self, values: IntArray, reported: BoolArray) -> IntArray:
        """Mean per group of what was reported, rounded down; 0 where nothing was."""
        count = self.add(reported)
        return self.add(np.where(reported, values, 0)) // np.maximum(count, 1)


def time_order(parts: Sequence[GpuSamples], slot: IntArray) -> IntArray:
    """Samples by GPU, time, and place of origin: the same order whoever brought them, and when."""
    sources = sorted({(part.topic, part.partition) for part in parts})
    rank = {source: i for i, source in enumerate(sources)}
    source = np.concatenate([np.full(len(part), rank[part.topic, part.partition]) for part in parts])
    return np.lexsort(
        (
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            source,
            np.concatenate([part.at_ns for part in parts]),
            slot,
        )
    )


def spans(g: Groups, at_ms: IntArray, last_ms: IntArray, max_gap_ms: int, window_ms: int) -> IntArray:
    """Milliseconds that each sample speaks for."""
    span = np.diff(at_ms, prepend=at_ms[:1])
    span[g.starts] = at_ms[g.starts] - last_ms
    span = np.minimum(span, max_gap_ms)
    new = np.flatnonzero(last_ms == NEVER)
    if len(new):
        span[g.starts[new]] = _usual_gap(g, at_ms, new, min(window_ms, max_gap_ms), max_gap_ms)
    return span


def _usual_gap(g: Groups, at_ms: IntArray, groups: IntArray, otherwise: int, at_most: int) -> IntArray:
    """Median gap between the samples of each group; `otherwise` where there is only one sample time."""
    gap = np.diff(at_ms, prepend=at_ms[:1])
    gap[g.starts] = 0
    use = np.flatnonzero((gap > 0) & np.isin(g.gid, groups))
    use = use[np.lexsort((gap[use], g.gid[use]))]
    first = np.searchsorted(g.gid[use], groups, side="left")
    count = np.searchsorted(g.gid[use], groups, side="right") - first
    middle = np.minimum(first + np.maximum(count - 1, 0) // 2, max(len(use) - 1, 0))
    median = gap[use][middle] if len(use) else np.zeros(len(groups), np.int64)
    return np.asarray(np.minimum(np.where(count > 0, median, otherwise), at_most))
