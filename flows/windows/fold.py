"""Block → partial sums per (window, grouping set, series), split by shard. Stateless and vectorised.

Events are first folded to the finest combination of all watched dimensions (the leaves); every grouping set is then
folded from the leaves, of which there are far fewer. Distributions are counted from the events themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from flows.windows.partials import Partials, Rows, add_cells, take_rows
from flows.windows.sums import add_groups
from schemas.columns import MISSING, TOO_LATE, Coded, Costs, IntArray, RequestColumns
from schemas.request_window import COLUMN, ERROR_SUMS, SKETCHES, SUMS, SparseSketches
from schemas.series import Series
from schemas.sketch import MIN_BUCKET, bucket_of

_MAX_CACHED_SERIES = 200_000
_MAX_DENSE_CELLS = 1 << 21


class RequestFold:
    """Folds blocks of requests for a fixed configuration.

    Parameters
    ----------
    window_ns
        Length of the tumbling windows.
    grouping_sets
        Dimensions to watch together; each inner sequence is one set, the empty one the total.
    shards
        Number of shards that series are spread over.
    """

    def __init__(self, *, window_ns: int, grouping_sets: Sequence[Sequence[str]], shards: int) -> None:
        self.window_ns = window_ns
        self.grouping_sets = [tuple(g) for g in grouping_sets]
        self.shards = shards
        self.dimensions = sorted({d for g in self.grouping_sets for d in g})
        self._known: dict[tuple[int, tuple[str, ...]], tuple[Series, int]] = {}

    def fold(self, columns: RequestColumns, costs: Costs) -> list[tuple[int, bool, Rows]]:
        """(window start, late, rows of all grouping sets), without events that are too late."""
        use = np.flatnonzero(columns.lateness != TOO_LATE)
        if len(use) == 0:
            return []
        sums = _event_sums(columns, costs)[use]
        cells = {name: _cells(values[use]) for name, values in _distributions(columns).items()}
        starts = columns.at_ns[use] // self.window_ns
        late = columns.lateness[use] > 0
        slot_values, slot = np.unique(starts * 2 + late, return_inverse=True)  # (window, late) pairs
        codes = {d: columns.group_dims[d].codes[use] for d in self.dimensions}
        leaf, leaf_example = _combine([slot, *codes.values()])
        leaf_sums = _sum_by(leaf, sums, len(leaf_example))
        leaf_slot = slot[leaf_example]
        leaf_dims = {d: Coded(code[leaf_example], columns.group_dims[d].values) for d, code in codes.items()}
        parts: list[list[Rows]] = [[] for _ in slot_values]
        for number, names in enumerate(self.grouping_sets):
            group, example = _combine([leaf_slot, *(leaf_dims[d].codes for d in names)])
            group_sums = _sum_by(group, leaf_sums, len(example))
            event_group = group[leaf]
            series, ids = self._identify(number, names, leaf_dims, example)
            sketches = {name: _sketch(event_group, *cells[name], len(example)) for name in SKETCHES}
            rows = Rows(ids, series, group_sums, sketches)
            for which in range(len(slot_values)):  # sorted by identity once, when all grouping sets are joined
                parts[which].append(take_rows(rows, np.flatnonzero(leaf_slot[example] == which)))
        return [
            (int(value // 2) * self.window_ns, bool(value % 2), _concatenate(rows))
            for value, rows in zip(slot_values.tolist(), parts, strict=True)
        ]

    def split(
        self,
        parts: Sequence[tuple[int, bool, Rows]],
        *,
        partition: str,
        watermark_ns: int,
        rejected: Mapping[int, int],
        idle: bool = False,
    ) -> list[Partials]:
        """Spread a block's parts over the shards: one `Partials` per shard, empty ones carry the watermark.

        Parameters
        ----------
        rejected
            Dead letters by window start; they are booked on the total series, if there is one.
        """
        parts = [*parts, *self._rejected(rejected)]
        out = []
        for shard in range(self.shards):
            mine = []
            for start, late, rows in parts:
                keep = np.flatnonzero(rows.ids % np.uint64(self.shards) == shard)
                if len(keep) == len(rows.ids):
                    mine.append((start, late, rows))
                elif len(keep):
                    mine.append((start, late, take_rows(rows, keep)))
            out.append(Partials(str(shard), partition, watermark_ns, idle, mine))
        return out

    def _rejected(self, rejected: Mapping[int, int]) -> list[tuple[int, bool, Rows]]:
        if not rejected or () not in self.grouping_sets:
            return []
        total = Series("requests", (), ())
        out = []
        for start, count in sorted(rejected.items()):
            rows = Rows.empty()
            sums = np.zeros((1, len(SUMS)), np.int64)
            sums[0, COLUMN["rejected"]] = count
            out.append((start, False, Rows(np.array([total.identity()], np.uint64), [total], sums, rows.sketches)))
        return out

    def _identify(
        self, number: int, names: tuple[str, ...], dims: Mapping[str, Coded], example: IntArray
    ) -> tuple[list[Series], npt.NDArray[np.uint64]]:
        texts = [[dims[d].values[c] for c in dims[d].codes[example].tolist()] for d in names]
        values: list[tuple[str, ...]] = list(zip(*texts, strict=True)) if texts else [()] * len(example)
        if len(self._known) > _MAX_CACHED_SERIES:
            self._known.clear()
        series, ids = [], np.empty(len(values), np.uint64)
        for i, value in enumerate(values):
            known = self._known.get((number, value))
            if known is None:
                one = Series("requests", names, value)
                known = self._known[(number, value)] = (one, one.identity())
            series.append(known[0])
            ids[i] = known[1]
        return series, ids


def _event_sums(c: RequestColumns, k: Costs) -> IntArray:
    """One row of `SUMS` per event."""
    out = np.zeros((len(c), len(SUMS)), np.int64)

    def put(name: str, values: npt.NDArray[np.generic]) -> None:
        out[:, COLUMN[name]] = values

    put("requests", np.ones(len(c), np.int64))
    put("errors", c.failed)
    failed = np.flatnonzero(c.failed & (c.cause > 0))
    out[failed, COLUMN[ERROR_SUMS[0]] + c.cause[failed].astype(np.int64) - 1] = 1
    retry = c.attempt > 1
    put("retries", retry)
    for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"):
        put(name, np.maximum(getattr(c, name), 0))
    put("usage_missing", ~c.failed & (c.input_tokens == MISSING) & (c.output_tokens == MISSING))
    cost = np.maximum(k.total_pico, 0)
    put("cost_pico", cost)
    for kind in ("input", "cache_read", "cache_write", "output", "reasoning"):
        put(f"cost_{kind}_pico", getattr(k, f"{kind}_pico"))
    unpriced = (k.total_pico == MISSING) & (k.status == 2)
    put("unpriced_requests", unpriced)
    put("unpriced_tokens", unpriced * (np.maximum(c.input_tokens, 0) + np.maximum(c.output_tokens, 0)))
    put("wasted_pico", np.where(c.failed | retry, cost, 0))
    put("missed_cache_pico", k.missed_cache_pico)
    put("missed_cache_requests", k.missed_cache_pico > 0)
    put("outcomes", c.dims["outcome"].codes != _code_of_empty(c.dims["outcome"]))
    put("outcome_value_pico", np.maximum(c.outcome_value_pico, 0))
    used = np.maximum(
        _used_ppm(c.ratelimit_limit_requests, c.ratelimit_remaining_requests),
        _used_ppm(c.ratelimit_limit_tokens, c.ratelimit_remaining_tokens),
    )
    put("quota_reports", used >= 0)
    put("quota_used_ppm", np.maximum(used, 0))
    put("late", c.lateness > 0)
    return out


def _code_of_empty(coded: Coded) -> int:
    return coded.values.index("") if "" in coded.values else -1


def _used_ppm(limit: IntArray, remaining: IntArray) -> IntArray:
    """Parts per million of a rate limit that are used; -1 where it was not reported."""
    known = (limit > 0) & (remaining >= 0)
    safe = np.where(known, limit, 1)
    left = np.minimum(np.where(known, remaining, 0), safe)
    return np.where(known, 1_000_000 - (left.astype(np.float64) / safe * 1_000_000).astype(np.int64), -1)


def _distributions(c: RequestColumns) -> dict[str, npt.NDArray[np.float64]]:
    ok = ~c.failed
    many = c.output_tokens > 1
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = (c.latency_ms - c.ttft_ms) / np.where(many, c.output_tokens - 1, 1)
    return {
        "latency_ms": np.where(ok, c.latency_ms, np.nan),
        "ttft_ms": np.where(ok, c.ttft_ms, np.nan),
        "tpot_ms": np.where(ok & many & (tpot >= 0), tpot, np.nan),
    }


def _cells(values: npt.NDArray[np.float64]) -> tuple[IntArray, IntArray]:
    """Events that have a value, and their buckets counted from 0."""
    have = np.flatnonzero(~np.isnan(values))
    return have, bucket_of(values[have]).astype(np.int64) - MIN_BUCKET


def _sketch(group: IntArray, have: IntArray, buckets: IntArray, groups: int) -> SparseSketches:
    """Count buckets per group, densely where the table is small."""
    if len(have) == 0:
        return SparseSketches(np.zeros(0, np.int64), np.zeros(0, np.int16), np.zeros(0, np.int64))
    low = int(buckets.min())
    width = int(buckets.max()) - low + 1
    cell = group[have] * width + (buckets - low)
    if groups * width <= _MAX_DENSE_CELLS:
        table = np.bincount(cell, minlength=groups * width)
        keys = np.flatnonzero(table)
        counts = table[keys].astype(np.int64)
    else:
        keys, counts = add_cells(cell, np.ones(len(cell), np.int64))
    return SparseSketches(keys // width, (keys % width + low + MIN_BUCKET).astype(np.int16), counts)


def _combine(codes: Sequence[npt.NDArray[np.integer]]) -> tuple[IntArray, IntArray]:
    """Number the distinct combinations. Returns each row's number and one example row per number."""
    key = codes[0].astype(np.int64)
    top = int(key.max()) + 1 if len(key) else 1
    for code in codes[1:]:
        width = int(code.max()) + 1 if len(code) else 1
        if top * width >= 1 << 62:  # renumber before the mixed radix overflows
            _, key = np.unique(key, return_inverse=True)
            top = int(key.max()) + 1
        key = key * width + code
        top *= width
    _, example, number = np.unique(key, return_index=True, return_inverse=True)
    return number, example


def _sum_by(group: IntArray, rows: IntArray, groups: int) -> IntArray:
    """Add up rows by group number; exact up to `LARGEST_SUM`. Every group has at least one row."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(groups))
    return add_groups(rows[order], starts)


def _reorder(rows: Rows, order: IntArray) -> Rows:
    """The named rows in any order; sketches sorted again by (row, bucket)."""
    taken = take_rows(rows, order)
    for name, s in taken.sketches.items():
        by = np.lexsort((s.buckets, s.rows))
        taken.sketches[name] = SparseSketches(s.rows[by], s.buckets[by], s.counts[by])
    return taken


def _concatenate(parts: Sequence[Rows]) -> Rows:
    """Join rows of different grouping sets (no series twice) and sort them by identity."""
    before = np.cumsum([0] + [len(p.ids) for p in parts[:-1]])
    sketches = {
        name: SparseSketches(
            np.concatenate([p.sketches[name].rows + b for p, b in zip(parts, before, strict=True)]),
            np.concatenate([p.sketches[name].buckets for p in parts]),
            np.concatenate([p.sketches[name].counts for p in parts]),
        )
        for name in SKETCHES
    }
    ids = np.concatenate([p.ids for p in parts])
    joined = Rows(ids, [s for p in parts for s in p.series], np.concatenate([p.sums for p in parts]), sketches)
    return _reorder(joined, np.argsort(ids))
