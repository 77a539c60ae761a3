"""Partial aggregates: what a block contributes to the windows of one shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flows.windows.sums import add_groups
from schemas.columns import IntArray
from schemas.request_window import SKETCHES, SUMS, SparseSketches
from schemas.series import Series
from schemas.sketch import MAX_BUCKET, MIN_BUCKET

BUCKETS = MAX_BUCKET - MIN_BUCKET + 1
"""Number of sketch buckets."""


@dataclass(slots=True)
class Rows:
    """Sums and sketches of some series, one row each, sorted by identity, no series twice.

    Parameters
    ----------
    ids
        uint64, shape (m,): `Series.identity`.
    series
        Parallel to `ids`.
    sums
        int64, shape (m, len(SUMS)).
    sketches
        By name of `SKETCHES`.
    """

    ids: npt.NDArray[np.uint64]
    series: list[Series]
    sums: IntArray
    sketches: dict[str, SparseSketches]

    @staticmethod
    def empty() -> Rows:
        """No rows at all."""
        none = SparseSketches(np.zeros(0, np.int64), np.zeros(0, np.int16), np.zeros(0, np.int64))
        return Rows(np.zeros(0, np.uint64), [], np.zeros((0, len(SUMS)), np.int64), dict.fromkeys(SKETCHES, none))


@dataclass(slots=True)
class Partials:
    """What one block contributes to one shard.

    Parameters
    ----------
    shard
        The shard's name.
    partition
        `topic/partition` the block came from.
    watermark_ns
        That partition's watermark after the block.
    idle
        The partition is silent and caught up.
    parts
        (window start in ns, late, rows), each at most once.
    """

    shard: str
    partition: str
    watermark_ns: int
    idle: bool
    parts: list[tuple[int, bool, Rows]]


def add_cells(keys: IntArray, counts: IntArray) -> tuple[IntArray, IntArray]:
    """Add up counts of equal keys. Returns the distinct keys, sorted, with their sums."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, np.int64)
    return keys[starts], np.add.reduceat(counts[order], starts) if len(keys) else counts[:0]


def merge_rows(parts: Sequence[Rows], *, distinct: bool = True) -> Rows:
    """Add rows of the same series up. Exact, and independent of the order of `parts`.

    Parameters
    ----------
    distinct
        No part holds a series twice (then a single part is its own answer).
    """
    parts = [p for p in parts if len(p.ids)]
    if not parts:
        return Rows.empty()
    if len(parts) == 1 and distinct:
        return parts[0]
    ids, first, inverse = np.unique(np.concatenate([p.ids for p in parts]), return_index=True, return_inverse=True)
    everyone = [s for p in parts for s in p.series]
    sums = np.concatenate([p.sums for p in parts])
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(len(ids)))
    before = np.cumsum([0] + [len(p.ids) for p in parts[:-1]])
    sketches = {}
    for name in SKETCHES:
        keys = np.concatenate(
            [
                inverse[p.sketches[name].rows + b] * BUCKETS + (p.sketches[name].buckets.astype(np.int64) - MIN_BUCKET)
                for p, b in zip(parts, before, strict=True)
            ]
        )
        keys, counts = add_cells(keys, np.concatenate([p.sketches[name].counts for p in parts]))
        sketches[name] = SparseSketches(keys // BUCKETS, (keys % BUCKETS + MIN_BUCKET).astype(np.int16), counts)
    return Rows(ids, [everyone[i] for i in first.tolist()], add_groups(sums[order], starts), sketches)


def take_rows(rows: Rows, keep: npt.NDArray[np.integer]) -> Rows:
    """The named rows, in the given (ascending) order."""
    new_row = np.full(len(rows.ids), -1, np.int64)
    new_row[keep] = np.arange(len(keep))
    sketches = {}
    for name, s in rows.sketches.items():
        mine = new_row[s.rows] >= 0
        sketches[name] = SparseSketches(new_row[s.rows[mine]], s.buckets[mine], s.counts[mine])
    return Rows(rows.ids[keep], [rows.series[i] for i in keep.tolist()], rows.sums[keep], sketches)
