"""GPU windows: states and their time, edges, owners, late samples, and one answer whatever the order of input."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.windows.gpus import GpuMerge, GpuPartials, fold_gpus, gpu_features
from schemas.columns import GPU_DIMENSIONS, LATE, MISSING, TOO_LATE, Coded, GpuColumns
from schemas.errors import StateUnreadable
from schemas.gpu_window import MAXIMA, STATES, SUMS, GpuWindows
from schemas.series import Series

NS = 1_000_000_000
T0 = 1_700_000_000
"""A multiple of 10 s."""
WINDOW_NS = 10 * NS
GIB = 1 << 30
USD_PER_HOUR = 3_600_000_000_000
"""3.60 USD: exactly 1e6 pico-USD per millisecond."""

Sample = dict[str, Any]


def sample(at_s: float, **said: Any) -> Sample:
    """A busy GPU's sample at `T0 + at_s`; keywords replace what it says, None takes it away."""
    usual: Sample = {
        "at": T0 + at_s, "node": "n1", "gpu_uuid": "GPU-a", "gpu_index": "0", "util": 0.5, "util_source": "sm_active",
        "memory_used_bytes": 60 * GIB, "memory_total_bytes": 80 * GIB, "pod": "pod-1", "team": "search",
        "usd_per_hour_pico": USD_PER_HOUR, "xid": 0,
    }  # fmt: skip
    return {name: value for name, value in (usual | said).items() if value is not None}


def engine(at_s: float, **said: Any) -> Sample:
    """What an inference engine reports, without any reading of the device."""
    return {"at": T0 + at_s, "node": "n1", "gpu_uuid": "GPU-a", "model": "m", **said}


def columns(samples: Sequence[Sample], *, topic: str = "ai.gpus", partition: int = 0, first: int = 0) -> GpuColumns:
    """A decoded block."""

    def coded(name: str) -> Coded:
        texts = [str(s.get(name, "")) for s in samples]
        values = list(dict.fromkeys(texts))
        return Coded(np.array([values.index(t) for t in texts], np.int32), values)

    def ints(name: str) -> Any:
        return np.array([s.get(name, MISSING) for s in samples], np.int64)

    def floats(name: str) -> Any:
        return np.array([s.get(name, np.nan) for s in samples], np.float64)

    return GpuColumns(
        topic=topic,
        partition=partition,
        offsets=np.array([s.get("offset", first + i) for i, s in enumerate(samples)], np.int64),
        positions=np.zeros(len(samples), np.int64),
        at_ns=np.array([round(s["at"] * 1000) * 1_000_000 for s in samples], np.int64),
        lateness=np.array([s.get("lateness", 0) for s in samples], np.uint8),
        dims={dim: coded(dim) for dim in GPU_DIMENSIONS},
        util=floats("util"),
        memory_used_bytes=ints("memory_used_bytes"),
        memory_total_bytes=ints("memory_total_bytes"),
        power_w=floats("power_w"),
        power_limit_w=floats("power_limit_w"),
        temperature_c=floats("temperature_c"),
        xid=ints("xid"),
        ecc_uncorrected=ints("ecc_uncorrected"),
        throttled=ints("throttled").astype(np.int8),
        requests_running=floats("requests_running"),
        requests_waiting=floats("requests_waiting"),
        kv_cache_usage=floats("kv_cache_usage"),
        preemptions=ints("preemptions"),
        tokens_per_s=floats("tokens_per_s"),
        usd_per_hour_pico=ints("usd_per_hour_pico"),
    )


def fold(samples: Sequence[Sample], **where: Any) -> GpuPartials:
    return fold_gpus(columns(samples, **where), window_ns=WINDOW_NS)


def merge(**rules: Any) -> GpuMerge:
    return GpuMerge(window_ns=WINDOW_NS, allowed_lateness_ns=60 * NS, **rules)


def closed(samples: Sequence[Sample], **rules: Any) -> list[GpuWindows]:
    one = merge(**rules)
    one.add(fold(samples))
    return one.flush()


def rows(windows: Iterable[GpuWindows], dims: tuple[str, ...] | None = None, version: int = 1) -> list[dict[str, Any]]:
    """Rows of single GPUs, or of one roll-up, as dicts."""
    out = []
    for w in windows:
        for i, series in enumerate(w.series):
            if w.version == version and (w.is_gpu[i] if dims is None else not w.is_gpu[i] and series.dims == dims):
                row: dict[str, Any] = dict(zip(SUMS, w.sums[i].tolist(), strict=True))
                row |= {f"{name}_max": w.maxima[i, k] for k, name in enumerate(MAXIMA)}
                row |= {"start_s": w.start_ns / NS - T0, "xids": w.xids[i], "series": series}
                out.append(row | {name: texts[i] for name, texts in w.owners.items()})
    return out


def total(found: Iterable[dict[str, Any]], name: str) -> int:
    return sum(row[name] for row in found)


def covered_ms(found: Iterable[dict[str, Any]]) -> int:
    return sum(row[f"{state}_ms"] for row in found for state in STATES)


def plain(windows: Sequence[GpuWindows]) -> str:
    """Everything a sink could see of the windows."""
    return repr(
        [
            (w.start_ns, w.end_ns, w.version, [tuple(s) for s in w.series], w.is_gpu.tolist(), w.sums.tolist(),
             w.maxima.tobytes(), w.owners, w.xids)
            for w in windows
        ]
    )  # fmt: skip


# ---------------------------------------------------------------------- time
@pytest.mark.parametrize("every_s", [0.5, 5.0, 7.0, 10.0])
def test_an_hour_of_samples_covers_exactly_an_hour(every_s: float) -> None:
    found = rows(closed([sample(every_s * i) for i in range(int(3600 / every_s))]))
    last_s = every_s * (int(3600 / every_s) - 1)
    assert covered_ms(found) == round((last_s + every_s) * 1000)


def test_samples_further_apart_than_a_window_lose_only_their_first_span() -> None:
    found = rows(closed([sample(30 * i) for i in range(120)]))
    assert covered_ms(found) == 119 * 30_000 + 10_000


def test_two_partitions_with_the_same_gpu_cover_its_time_once() -> None:
    one = merge()
    one.add(fold([sample(5 * i) for i in range(120)], partition=0))
    one.add(fold([sample(5 * i + 2) for i in range(120)], partition=1))
    one.add(fold([sample(5 * i) for i in range(120)], partition=2))
    found = rows(one.flush())
    assert covered_ms(found) == pytest.approx(600_000, abs=5_000)
    assert {row["gpus"] for row in found} == {1}


def test_silence_is_not_idle_time() -> None:
    idle = {"util": 0.0}
    found = rows(closed([sample(10 * i, **idle) for i in range(6)] + [sample(3_000, **idle)]))
    assert covered_ms(found) == 60_000 + 60_000, "after a gap a sample speaks for max_gap_s, no more"


def test_a_forgotten_gpu_starts_anew() -> None:
    samples = [sample(0), sample(10), sample(10_000, xid=79)]
    found = rows(closed(samples, evict_after_s=3_600.0))
    assert found[-1]["xid_events"] == 0, "an XID that was there before we looked is no news"
    assert found[-1]["busy_ms"] == 10_000
    assert rows(closed(samples, evict_after_s=36_000.0))[-1]["xid_events"] == 1


# ---------------------------------------------------------------------- states and money
@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({}, "busy"),
        ({"util": 0.02}, "held_idle"),
        ({"util": 0.02, "requests_running": 1.0}, "busy"),
        ({"util": None}, "busy"),  # held, and nothing speaks of idleness
        ({"util": None, "requests_running": 0.0}, "held_idle"),
        ({"util": 0.0, "pod": None, "team": None, "memory_used_bytes": GIB}, "free"),
        ({"util": 0.0, "pod": None, "team": None}, "held_idle"),  # memory in use: somebody holds it
        ({"util": 0.0, "memory_used_bytes": GIB}, "held_idle"),
        ({"util": 0.0, "pod": None, "team": None, "memory_used_bytes": None}, "free"),
        ({"util": 0.9, "pod": None, "team": None, "memory_used_bytes": GIB}, "busy"),
    ],
)
def test_state_follows_use_and_holder(said: Sample, state: str) -> None:
    (row,) = rows(closed([sample(2, **said), sample(7, **said)]))
    assert row[f"{state}_ms"] == covered_ms([row]) == 10_000


def test_states_are_counted_sample_by_sample() -> None:
    (row,) = rows(closed([sample(1, util=0.0), sample(3, util=0.9), sample(5, util=0.0), sample(8, util=0.9)]))
    assert (row["busy_ms"], row["held_idle_ms"]) == (2_000 + 3_000, 2_000 + 2_000)


def test_each_state_costs_its_share_of_the_price_exactly() -> None:
    samples = [sample(10 * i, util=0.0 if i % 3 else 0.9) for i in range(360)]
    found = rows(closed(samples))
    assert total(found, "busy_pico") == total(found, "busy_ms") * 1_000_000
    assert sum(total(found, f"{state}_pico") for state in STATES) == USD_PER_HOUR
    assert total(found, "unpriced_ms") == 0


def test_the_highest_price_does_not_overflow() -> None:
    most = 10**6 * 10**12
    found = rows(closed([sample(60 * i, usd_per_hour_pico=most) for i in range(60)]))
    exact = most * (59 * 60 + 10) / 3600
    assert 0 <= exact - total(found, "busy_pico") <= 256, "60 samples, rounded down to a pico-USD (and a float) each"


def test_a_price_is_carried_and_its_absence_counted() -> None:
    found = rows(closed([sample(0, usd_per_hour_pico=None), sample(10), sample(20, usd_per_hour_pico=None)]))
    assert [row["unpriced_ms"] for row in found] == [10_000, 0, 0]
    assert found[2]["busy_pico"] == 10_000 * 1_000_000


def test_engine_and_device_samples_of_one_gpu_are_one_row() -> None:
    samples = [engine(1, requests_running=4.0), sample(2, util=0.01), engine(6, requests_running=4.0)]
    (row,) = rows(closed(samples))
    assert row["held_idle_ms"] == 0, "a GPU that runs requests is busy, whatever the device says"
    assert (row["model"], row["team"], row["pod"]) == ("m", "search", "pod-1")
    assert row["running_milli"] == 4_000
    assert row["util_max"] == 0.01


def test_device_readings_stand_in_for_a_minute_while_only_the_engine_reports() -> None:
    samples = [sample(0, util=0.0)] + [engine(5 * i, requests_running=0.0) for i in range(1, 30)]
    found = rows(closed(samples))
    assert total(found, "util_ms") == pytest.approx(60_000, abs=10_000)
    assert total(found, "held_idle_ms") == covered_ms(found)


def test_an_engine_that_knows_only_the_index_finds_its_gpu() -> None:
    by_index = {"gpu_uuid": "", "gpu_index": "0"}
    found = rows(closed([sample(1), engine(2, **by_index, requests_running=1.0), engine(11, **by_index)]))
    assert [row["series"].values for row in found] == [("", "n1", "GPU-a", "")] * 2


def test_mig_instances_are_gpus_of_their_own() -> None:
    found = rows(closed([sample(1, mig_id="1"), sample(1, mig_id="2", util=0.0)]))
    assert [(row["series"].values[-1], row["busy_ms"]) for row in found] == [("1", 10_000), ("2", 0)]


def test_utilisation_is_weighted_by_time() -> None:
    (row,) = rows(closed([sample(0, util=0.1), sample(8, util=0.2), sample(9, util=0.9)]))
    # The first sample speaks for the median gap of its window (1 s of 1 s and 8 s).
    assert row["util_ppm_ms"] == 100_000 * 1_000 + 200_000 * 8_000 + 900_000 * 1_000
    assert row["util_ms"] == 10_000


# ---------------------------------------------------------------------- edges and counters
def test_an_xid_counts_when_it_changes_not_while_it_stands() -> None:
    said = [79, 79, 0, 0, 31, 31, 79, 79]
    found = rows(closed([sample(10 * i, xid=xid) for i, xid in enumerate(said)]))
    assert [row["xid_events"] for row in found] == [0, 0, 0, 0, 1, 0, 1, 0]
    assert [row["xid_hardware_events"] for row in found] == [0, 0, 0, 0, 0, 0, 1, 0]
    assert [row["xids"] for row in found] == [(), (), (), (), (31,), (), (79,), ()]


def test_new_xids_of_a_window_are_listed_in_order_and_rolled_up() -> None:
    samples = [sample(0), sample(0, gpu_uuid="GPU-b", gpu_index="1")]
    samples += [sample(12, xid=31), sample(13, gpu_uuid="GPU-b", gpu_index="1", xid=48), sample(14, xid=79)]
    windows = closed(samples)
    assert [row["xids"] for row in rows(windows)[2:]] == [(31, 79), (48,)]
    assert rows(windows, ())[1]["xids"] == (31, 48, 79)
    assert rows(windows, ())[1]["xid_hardware_events"] == 2


def test_a_gap_in_reporting_does_not_hide_an_xid() -> None:
    found = rows(closed([sample(0), engine(10), engine(20), sample(30, xid=79)]))
    assert [row["xid_events"] for row in found] == [0, 0, 0, 1]


def test_counters_count_their_increase_and_survive_a_restart() -> None:
    said = [(7, 100), (7, 130), (9, 130), (1, 5), (1, 6)]
    found = rows(closed([sample(10 * i, ecc_uncorrected=e, preemptions=p) for i, (e, p) in enumerate(said)]))
    assert [row["ecc_events"] for row in found] == [0, 0, 2, 1, 0]
    assert [row["preemptions"] for row in found] == [0, 30, 0, 5, 1]


def test_a_gpu_is_unhealthy_until_a_quiet_time_after_its_fault() -> None:
    found = rows(closed([sample(10 * i, xid=79 if i >= 2 else 0) for i in range(80)], fault_quiet_s=600.0))
    unhealthy = [row["start_s"] for row in found if row["unhealthy_ms"]]
    assert (unhealthy[0], unhealthy[-1]) == (20, 620)
    assert total(found, "unhealthy_ms") == 61 * 10_000


def test_an_application_xid_leaves_the_gpu_healthy() -> None:
    assert total(rows(closed([sample(0), sample(10, xid=31), sample(20, xid=31)])), "unhealthy_ms") == 0


def test_new_memory_errors_make_a_gpu_unhealthy() -> None:
    found = rows(closed([sample(0, ecc_uncorrected=0), sample(10, ecc_uncorrected=1)]))
    assert found[1]["unhealthy_ms"] == 10_000


@pytest.mark.parametrize("said", [{"xid": 0}, {"xid": 79, "pod": "pod-2"}])
def test_a_reset_or_a_new_pod_ends_the_unhealthy_state(said: Sample) -> None:
    found = rows(closed([sample(0), sample(10, xid=79), sample(20, xid=79), sample(30, **said), sample(40, **said)]))
    assert [row["unhealthy_ms"] > 0 for row in found] == [False, True, True, False, False]


# ---------------------------------------------------------------------- owners and roll-ups
def test_the_last_known_owner_stands_in_and_expires() -> None:
    nobody = {"pod": None, "team": None}
    found = rows(closed([sample(0, pool="p")] + [sample(10 * i, **nobody) for i in range(1, 40)]))
    named = [row["start_s"] for row in found if row["team"] == "search"]
    assert (named[0], named[-1]) == (0, 300)
    assert found[-1]["pod"] == ""
    assert {row["pool"] for row in found} == {"p"}, "the pool is a property of the machine and does not expire"


def test_a_new_pod_does_not_inherit_the_team_of_the_old_one() -> None:
    found = rows(closed([sample(0), sample(10, pod="pod-2", team=None), sample(20, pod="pod-2", team=None)]))
    assert [row["team"] for row in found] == ["search", "", ""]


def test_the_last_sample_that_names_an_owner_decides() -> None:
    (row,) = rows(closed([sample(1, team="a"), sample(3, team="b"), sample(5, team=None)]))
    assert row["team"] == "b"


def test_rollups_add_up_to_the_whole_and_show_the_unattributed() -> None:
    samples = [
        sample(i, node=f"n{k % 2}", gpu_uuid=f"GPU-{k}", team=("a", "b", None)[k % 3], pod=None, util=0.1 * k,
               power_w=100.0 * k, cluster="c")
        for i in (2, 7) for k in range(9)
    ]  # fmt: skip
    windows = closed(samples)
    (whole,) = rows(windows, ())
    teams = rows(windows, ("team",))
    assert [row["series"].values[0] for row in teams] == ["a", "b", "unattributed"]
    for dims in (("team",), ("cluster",), ("cluster", "node"), ("pool",), ("gpu_model",), ("model",)):
        for name in SUMS:
            assert total(rows(windows, dims), name) == whole[name] == total(rows(windows), name), (dims, name)
    assert whole["gpus"] == 9
    assert whole["power_mw"] == 100_000 * sum(range(9))
    assert whole["util_max"] == pytest.approx(0.8)


# ---------------------------------------------------------------------- watermarks and late samples
def test_a_window_closes_when_the_watermark_reaches_its_end() -> None:
    one = merge()
    one.add(fold([sample(1), sample(11)]))
    assert one.advance((T0 + 10) * NS - 1) == []
    assert [w.start_ns for w in one.advance((T0 + 10) * NS)] == [T0 * NS]
    assert one.advance((T0 + 10) * NS) == []
    assert [(w.start_ns, w.version) for w in one.flush()] == [((T0 + 10) * NS, 1)]


def test_a_late_sample_makes_one_second_version_of_what_it_changes() -> None:
    one = merge()
    one.add(fold([sample(2), sample(12), sample(22), sample(32)]))
    first = one.advance((T0 + 40) * NS)
    one.add(fold([sample(18, util=0.0, lateness=LATE)], first=9))
    assert one.advance((T0 + 79) * NS) == []
    second = one.advance((T0 + 80) * NS)
    assert [(w.start_ns / NS - T0, w.version) for w in second] == [(10, 2)]
    (row,) = rows(second, version=2)
    assert (row["busy_ms"], row["held_idle_ms"], row["samples"]) == (10_000, 6_000, 2)
    # The sample after it now speaks for less: that window follows, the one after it is as it was.
    third = one.flush()
    assert [(w.start_ns / NS - T0, w.version) for w in third] == [(20, 2)]
    final = {row["start_s"]: row for row in rows(first)} | {r["start_s"]: r for r in rows(second + third, version=2)}
    assert covered_ms(final.values()) == 40_000


def test_a_second_version_holds_only_changed_rows_and_zeros_for_rows_that_vanished() -> None:
    one = merge()
    other = [sample(s, gpu_uuid="GPU-b", gpu_index="1", team="ads", pod="pod-9") for s in (2, 12)]
    one.add(fold([*other, sample(2), sample(12)]))
    one.advance((T0 + 20) * NS)
    one.add(fold([sample(14, team="other", lateness=LATE)], first=9))
    second = [w for w in one.flush() if w.start_ns == (T0 + 10) * NS]
    assert [row["series"].values[2] for row in rows(second, version=2)] == ["GPU-a"]
    teams = {row["series"].values[0]: row for row in rows(second, ("team",), version=2)}
    assert sorted(teams) == ["other", "search"]
    assert teams["search"]["gpus"] == teams["search"]["busy_ms"] == 0
    assert second[0].is_gpu.tolist() == [True] + [False] * (len(second[0]) - 1)


def test_late_samples_of_a_window_nobody_knew_are_version_two() -> None:
    one = merge()
    one.add(fold([sample(100)]))
    one.advance((T0 + 110) * NS)
    one.add(fold([sample(61, lateness=LATE)], first=9))
    out = one.flush()
    assert [(w.start_ns / NS - T0, w.version) for w in out] == [(60, 2), (100, 2)]


def test_too_late_samples_are_left_out() -> None:
    assert fold([sample(1, lateness=TOO_LATE)]).parts == []
    assert [row["samples"] for row in rows(closed([sample(1), sample(2, lateness=TOO_LATE)]))] == [1]


def test_samples_after_the_last_version_are_counted() -> None:
    one = merge()
    one.advance((T0 + 1000) * NS)
    one.add(fold([sample(1), sample(2)]))
    assert one.dropped == 2
    assert one.flush() == []


# ---------------------------------------------------------------------- one answer
_SAID = st.fixed_dictionaries(
    {
        "gpu_uuid": st.sampled_from(["GPU-a", "GPU-b", ""]),
        "gpu_index": st.sampled_from(["0", "1"]),
        "team": st.sampled_from(["a", "b", None]),
        "pod": st.sampled_from(["pod-1", "pod-2", None]),
        "util": st.sampled_from([0.0, 0.03, 0.5, None]),
        "requests_running": st.sampled_from([0.0, 3.0, None]),
        "xid": st.sampled_from([0, 31, 79, None]),
        "ecc_uncorrected": st.sampled_from([0, 1, 5, None]),
        "usd_per_hour_pico": st.sampled_from([USD_PER_HOUR, None]),
        "lateness": st.sampled_from([0, 0, 0, LATE]),
        "at_s": st.integers(0, 80).map(lambda s: s * 0.5),
        "partition": st.integers(0, 2),
    }
)


@settings(max_examples=60, deadline=None)
@given(said=st.lists(_SAID, min_size=1, max_size=40), data=st.data())
def test_blocks_partitions_order_and_restarts_do_not_change_the_answer(
    said: list[dict[str, Any]], data: st.DataObject
) -> None:
    by_partition: dict[int, list[Sample]] = {}
    for i, s in enumerate(said):
        rest = {k: v for k, v in s.items() if k not in ("at_s", "partition")}
        by_partition.setdefault(s["partition"], []).append(sample(s["at_s"], **rest) | {"offset": i})
    whole = merge()
    for partition, samples in by_partition.items():
        whole.add(fold(samples, partition=partition))
    expected = whole.flush()

    pieces = []
    for partition, samples in by_partition.items():
        cuts = data.draw(st.lists(st.integers(0, len(samples)), max_size=3).map(sorted))
        edges = [0, *cuts, len(samples)]
        for a, b in itertools.pairwise(edges):
            pieces.append(fold(samples[a:b], partition=partition))
    one = merge()
    for piece in data.draw(st.permutations(pieces)):
        one.add(pickle.loads(pickle.dumps(piece)))
        if data.draw(st.booleans()):
            other = merge()
            other.restore(one.snapshot())
            one = other
    out: list[GpuWindows] = []
    for until in sorted(data.draw(st.lists(st.integers(0, 130), max_size=4))):
        out += one.advance((T0 + until) * NS)
        one = merge(saved=one.snapshot())
    out += one.flush()
    out.sort(key=lambda w: (w.version, w.start_ns))
    assert plain(out) == plain(sorted(expected, key=lambda w: (w.version, w.start_ns)))


@settings(max_examples=40, deadline=None)
@given(said=st.lists(_SAID, min_size=1, max_size=40))
def test_final_versions_are_those_of_a_stream_without_lateness(said: list[dict[str, Any]]) -> None:
    samples = [sample(s["at_s"], **{k: v for k, v in s.items() if k not in ("at_s", "partition")}) for s in said]

    def final(windows: list[GpuWindows]) -> dict[tuple[int, Series], Any]:
        out: dict[tuple[int, Series], Any] = {}
        for w in sorted(windows, key=lambda w: w.version):
            for i, series in enumerate(w.series):
                owners = tuple(texts[i] for texts in w.owners.values())
                out[w.start_ns, series] = (w.sums[i].tolist(), w.maxima[i].tobytes(), owners, w.xids[i])
        return {key: row for key, row in out.items() if row[0][SUMS.index("samples")] > 0}

    assert final(closed(samples)) == final(closed([s | {"lateness": 0} for s in samples]))


def test_state_of_another_window_length_or_damaged_is_refused() -> None:
    one = merge()
    one.add(fold([sample(1)]))
    saved = one.snapshot()
    other = GpuMerge(window_ns=20 * NS, allowed_lateness_ns=0)
    with pytest.raises(StateUnreadable, match="windows of 10 s"):
        other.restore(saved)
    with pytest.raises(StateUnreadable):
        merge().restore(saved[:-1])
    assert merge(saved=saved[:-1]).flush() == []


def test_silent_gpus_are_forgotten() -> None:
    one = merge(evict_after_s=600.0)
    one.add(fold([sample(1, gpu_uuid=f"GPU-{k}", gpu_index=None) for k in range(50)]))
    one.advance((T0 + 10) * NS)
    assert len(one) == 50
    for i in range(1, 40):
        one.add(fold([sample(60 * i)], first=i))
        one.advance((T0 + 60 * i + 10) * NS)
    assert len(one) == 1


# ---------------------------------------------------------------------- features
def test_features_carry_every_column_and_the_weak_part_of_utilisation() -> None:
    samples = [sample(i, util_source="gpu_util") for i in (2, 7)]
    samples += [sample(i, gpu_uuid="GPU-b", gpu_index="1", team="ads") for i in (2, 7)]
    (window,) = closed(samples)
    x = gpu_features(window)
    assert set(x) == {*SUMS, *(f"{name}_max" for name in MAXIMA), "window_s", "gpu_util_ms"}
    assert {values.shape for values in x.values()} == {(len(window),)}
    assert x["window_s"][0] == 10.0
    weak = {series.key(): ms for series, ms in zip(window.series, x["gpu_util_ms"].tolist(), strict=True)}
    assert weak["gpus{team=search}"] == 10_000
    assert weak["gpus{team=ads}"] == 0
    assert weak["gpus{}"] == 10_000
    assert np.isnan(x["requests_waiting_max"]).all()
