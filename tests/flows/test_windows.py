"""Folding and merging against a slow reference that knows nothing of blocks, and against its own reordering."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.windows.fold import RequestFold
from flows.windows.merge import RequestMerge
from flows.windows.partials import Partials
from flows.windows.watermark import AFTER_ALL, Watermarks
from schemas.columns import Costs, RequestColumns
from schemas.request_window import RequestWindows
from schemas.series import Series
from tests.builders import NOON_NS, SECOND_NS, costs_for, request_columns

WINDOW_NS = 10 * SECOND_NS
SETS: list[list[str]] = [[], ["team"], ["provider", "model"], ["team", "model"]]


def folder(shards: int = 3) -> RequestFold:
    return RequestFold(window_ns=WINDOW_NS, grouping_sets=SETS, shards=shards)


def part(columns: RequestColumns, keep: np.ndarray[Any, Any]) -> RequestColumns:
    """Some rows of columns, as another block would hold them."""
    out = {}
    for name in RequestColumns.__dataclass_fields__:
        value = getattr(columns, name)
        if isinstance(value, np.ndarray):
            out[name] = value[keep]
        elif name in ("dims", "group_dims"):
            out[name] = {d: type(c)(c.codes[keep], c.values) for d, c in value.items()}
        elif name == "prefix_hash":
            out[name] = type(value)(value.codes[keep], value.values)
        elif name == "event_id":
            out[name] = [value[i] for i in keep]
        else:
            out[name] = value
    return RequestColumns(**out)


def part_costs(costs: Costs, keep: np.ndarray[Any, Any]) -> Costs:
    return Costs(
        **{
            name: (type(v)(v.codes[keep], v.values) if name == "source" else v[keep])
            for name in Costs.__dataclass_fields__
            for v in [getattr(costs, name)]
        }
    )


def flow(
    blocks: list[tuple[str, RequestColumns, Costs]], *, shards: int = 3, lateness_s: int = 60
) -> dict[tuple[int, int, str], tuple[dict[str, int], dict[str, list[float]]]]:
    """Rows by (window, version, series) after all blocks and the end of the input."""
    fold = folder(shards)
    names = sorted({name for name, _, _ in blocks})
    merges = [
        RequestMerge(names, window_ns=WINDOW_NS, allowed_lateness_ns=lateness_s * SECOND_NS) for _ in range(shards)
    ]
    closed: list[RequestWindows] = []

    def send(partials: list[Partials]) -> None:
        for merge, one in zip(merges, partials, strict=True):
            merge.add(one)
            closed.extend(merge.advance())

    for name, columns, costs in blocks:
        watermark = int(columns.at_ns.max()) - 5 * SECOND_NS
        send(fold.split(fold.fold(columns, costs), partition=name, watermark_ns=watermark, rejected={}))
    for name in names:
        send(fold.split([], partition=name, watermark_ns=AFTER_ALL, rejected={}))
    out = {}
    for w in closed:
        for i, series in enumerate(w.series):
            key = (w.start_ns, w.version, series.key())
            assert key not in out, "a row came twice"
            out[key] = (
                {n: int(w.column(n)[i]) for n in ("requests", "errors", "input_tokens", "cost_pico", "quota_used_ppm")},
                {n: np.nan_to_num(q[i], nan=-1.0).tolist() for n, q in w.quantiles.items()},
            )
    return out


def reference(columns: RequestColumns, costs: Costs) -> dict[tuple[int, str], dict[str, int]]:
    """The same sums, event by event."""
    out: dict[tuple[int, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    texts = {d: columns.dims[d].texts() for d in ("team", "provider", "model")}
    for i in range(len(columns)):
        start = int(columns.at_ns[i]) // WINDOW_NS * WINDOW_NS
        for names in SETS:
            series = Series("requests", tuple(names), tuple(texts[d][i] for d in names))
            row = out[(start, series.key())]
            row["requests"] += 1
            row["errors"] += int(columns.failed[i])
            row["input_tokens"] += max(int(columns.input_tokens[i]), 0)
            row["cost_pico"] += max(int(costs.total_pico[i]), 0)
    return out


def test_sums_equal_those_of_adding_event_by_event() -> None:
    columns = request_columns(1_500, seed=3)
    costs = costs_for(columns)
    rows = flow([("t/0", columns, costs)])
    expected = reference(columns, costs)
    assert {(s, k) for s, _, k in rows} == set(expected)
    for (start, version, key), (sums, _) in rows.items():
        assert version == 1
        for name, value in expected[(start, key)].items():
            assert sums[name] == value, (key, name)


def test_quantiles_are_within_one_percent_of_the_exact_ones() -> None:
    columns = request_columns(1_000, seed=5)
    rows = flow([("t/0", columns, costs_for(columns))])
    for start in sorted({s for s, _, _ in rows}):
        inside = (columns.at_ns // WINDOW_NS * WINDOW_NS == start) & ~columns.failed
        exact = np.sort(columns.latency_ms[inside])
        got = rows[(start, 1, "requests{}")][1]["latency_ms"]
        for q, value in zip((0.5, 0.95, 0.99), got, strict=True):
            assert value == pytest.approx(exact[int(q * (len(exact) - 1))], rel=0.0101)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 399), max_size=6, unique=True), shards=st.sampled_from([1, 4]))
def test_block_boundaries_and_shards_do_not_change_a_row(cuts: list[int], shards: int) -> None:
    columns = request_columns(400, seed=7)
    costs = costs_for(columns)
    edges = [0, *sorted(cuts), 400]
    blocks = []
    for low, high in itertools.pairwise(edges):
        keep = np.arange(low, high)
        blocks.append(("t/0", part(columns, keep), part_costs(costs, keep)))
    assert flow(blocks, shards=shards) == flow([("t/0", columns, costs)])


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(6)))
def test_interleaving_of_partitions_does_not_change_a_row(order: list[int]) -> None:
    columns = request_columns(300, seed=9)
    costs = costs_for(columns)
    blocks = []
    for number in range(3):
        mine = np.arange(number, 300, 3)
        blocks += [(f"t/{number}", part(columns, k), part_costs(costs, k)) for k in (mine[:50], mine[50:])]
    waiting = {f"t/{n}": [b for b in blocks if b[0] == f"t/{n}"] for n in range(3)}
    in_sequence = [waiting[blocks[i][0]].pop(0) for i in order]  # blocks of one partition keep their order
    assert flow(in_sequence) == flow([("t/0", columns, costs)])


def test_late_events_come_as_a_second_version_that_holds_everything() -> None:
    columns = request_columns(200, seed=1)
    columns.lateness[:] = 0
    late = np.flatnonzero(columns.at_ns < NOON_NS + WINDOW_NS)[::10]
    columns.lateness[late] = 1
    rows = flow([("t/0", columns, costs_for(columns))])
    first, second = rows[(NOON_NS, 1, "requests{}")][0], rows[(NOON_NS, 2, "requests{}")][0]
    assert first["requests"] == 100 - len(late)
    assert second["requests"] == 100
    untouched = [key for start, version, key in rows if version == 2 and start != NOON_NS]
    assert untouched == []


def test_a_row_of_a_second_version_is_only_written_where_something_changed() -> None:
    columns = request_columns(200, seed=1)
    late = np.flatnonzero((columns.at_ns < NOON_NS + WINDOW_NS) & (columns.dims["team"].codes == 1))[:3]
    columns.lateness[late] = 1
    rows = flow([("t/0", columns, costs_for(columns))])
    teams = {k for s, v, k in rows if v == 2 and k.startswith("requests{team=") and "model" not in k}
    assert teams == {"requests{team=search}"}


def test_too_late_events_are_in_no_window() -> None:
    columns = request_columns(200, seed=1)
    columns.lateness[:50] = 2
    rows = flow([("t/0", columns, costs_for(columns))])
    assert sum(sums["requests"] for (_, _, key), (sums, _) in rows.items() if key == "requests{}") == 150


def test_a_window_stays_open_until_the_slowest_partition_has_passed_it() -> None:
    fold = folder(1)
    merge = RequestMerge(["t/0", "t/1"], window_ns=WINDOW_NS, allowed_lateness_ns=0)
    columns = request_columns(500)
    parts = fold.fold(columns, costs_for(columns))
    merge.add(fold.split(parts, partition="t/0", watermark_ns=NOON_NS + 10**12, rejected={})[0])
    assert merge.advance() == []
    merge.add(fold.split([], partition="t/1", watermark_ns=NOON_NS + WINDOW_NS, rejected={})[0])
    assert [w.start_ns for w in merge.advance()] == [NOON_NS]


def test_an_idle_partition_holds_nothing_back_and_what_it_misses_is_counted() -> None:
    fold = folder(1)
    merge = RequestMerge(["t/0", "t/1"], window_ns=WINDOW_NS, allowed_lateness_ns=0)
    columns = request_columns(100)
    parts = fold.fold(columns, costs_for(columns))
    merge.add(fold.split([], partition="t/1", watermark_ns=-(2**62), rejected={}, idle=True)[0])
    merge.add(fold.split(parts, partition="t/0", watermark_ns=NOON_NS + 2 * WINDOW_NS, rejected={})[0])
    assert [w.start_ns for w in merge.advance()] == [NOON_NS]
    merge.add(fold.split(parts, partition="t/1", watermark_ns=NOON_NS, rejected={})[0])
    assert merge.advance() == []
    assert merge.dropped == 100 * len(SETS)


def test_when_all_partitions_are_idle_the_slowest_that_had_events_decides() -> None:
    marks = Watermarks(["a", "b", "c"])
    assert marks.observe("a", 100, idle=True) < 0
    marks.observe("b", 50, idle=True)
    assert marks.observe("c", -(2**62), idle=True) == 50 or marks.now_ns == 100
    assert marks.observe("b", 200, idle=True) == 100


def test_rejected_messages_are_booked_on_the_total() -> None:
    fold = folder(1)
    merge = RequestMerge(["t/0"], window_ns=WINDOW_NS, allowed_lateness_ns=0)
    merge.add(fold.split([], partition="t/0", watermark_ns=AFTER_ALL, rejected={NOON_NS: 7})[0])
    (window,) = merge.advance()
    assert window.series == [Series("requests", (), ())]
    assert window.column("rejected").tolist() == [7]
    assert window.column("requests").tolist() == [0]


def test_rows_beyond_the_limit_are_added_up_under_other() -> None:
    fold = RequestFold(window_ns=WINDOW_NS, grouping_sets=[["team", "model"]], shards=1)
    merge = RequestMerge(["t/0"], window_ns=WINDOW_NS, allowed_lateness_ns=0, max_rows=4)
    columns = request_columns(100)
    parts = fold.fold(columns, costs_for(columns))
    merge.add(fold.split(parts, partition="t/0", watermark_ns=AFTER_ALL, rejected={})[0])
    (window,) = merge.advance()
    assert len(window) == 4
    assert int(window.column("requests").sum()) == 100
    assert ("other", "other") in [s.values for s in window.series]


def test_snapshot_and_restore_at_any_point_change_nothing() -> None:
    fold = folder(1)
    columns = request_columns(600, seed=4)
    columns.lateness[100:130] = 1
    costs = costs_for(columns)
    sequence = []
    for low in range(0, 600, 60):
        keep = np.arange(low, low + 60)
        block = part(columns, keep)
        watermark = int(block.at_ns.max()) - 5 * SECOND_NS
        parts = fold.fold(block, part_costs(costs, keep))
        sequence += fold.split(parts, partition="t/0", watermark_ns=watermark, rejected={})

    def play(*, restart: bool) -> list[tuple[int, int, list[int]]]:
        merge = RequestMerge(["t/0"], window_ns=WINDOW_NS, allowed_lateness_ns=20 * SECOND_NS)
        out = []
        for one in sequence:
            merge.add(one)
            out += [(w.start_ns, w.version, w.sums.ravel().tolist()) for w in merge.advance()]
            if restart:
                saved = merge.snapshot()
                merge = RequestMerge(["t/0"], window_ns=WINDOW_NS, allowed_lateness_ns=20 * SECOND_NS, saved=saved)
        return out + [(w.start_ns, w.version, w.sums.ravel().tolist()) for w in merge.flush()]

    assert play(restart=True) == play(restart=False)
