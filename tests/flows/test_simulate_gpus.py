"""Simulated GPU samples: sane at rest, and telling under each GPU event."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any

import msgspec
import numpy as np

from flows.simulate import DEFAULT_START, Company, Planned, simulate
from schemas.gpu_event import GpuEvent

MINUTES = 12
BEGIN, END = DEFAULT_START + timedelta(minutes=2), DEFAULT_START + timedelta(minutes=11)


@cache
def rest() -> list[GpuEvent]:
    return samples_of(None)


def samples(planned: Planned | None = None) -> list[GpuEvent]:
    return rest() if planned is None else samples_of(planned)


def samples_of(planned: Planned | None) -> list[GpuEvent]:
    decoder = msgspec.json.Decoder(GpuEvent)
    stream = simulate(minutes=MINUTES, seed=3, rate=2, start=DEFAULT_START, incidents=[planned] if planned else None)
    return [decoder.decode(line) for minute in stream for line in minute.gpus]


def plan(kind: str, magnitude: float, **dims: str) -> Planned:
    return Planned(kind=kind, dims=dims, start=BEGIN, end=END, magnitude=magnitude)


def during(found: list[GpuEvent], after_min: float = 5, **dims: Any) -> list[GpuEvent]:
    low = (DEFAULT_START + timedelta(minutes=after_min)).isoformat()[:19]
    high = END.isoformat()[:19]
    return [e for e in found if low <= str(e.at) < high and all(getattr(e, k) == v for k, v in dims.items())]


def average(found: list[GpuEvent], name: str) -> float:
    return float(np.mean([getattr(e, name) for e in found if getattr(e, name) is not None]))


def test_every_gpu_is_sampled_six_times_a_minute() -> None:
    count: dict[tuple[str | None, str | None], int] = {}
    for e in samples():
        count[e.gpu_uuid, e.mig_id] = count.get((e.gpu_uuid, e.mig_id), 0) + 1
    assert len(count) == len(Company.default(3).gpus)
    assert set(count.values()) == {6 * MINUTES}


def test_samples_stay_within_what_the_hardware_can_do() -> None:
    for e in samples():
        assert e.memory_used_bytes is not None
        assert e.memory_total_bytes is not None
        assert e.power_w is not None
        assert e.power_limit_w is not None
        assert e.temperature_c is not None
        assert e.memory_used_bytes <= e.memory_total_bytes
        assert 0 < e.power_w <= e.power_limit_w
        assert 20 <= e.temperature_c <= 90
        assert e.xid == 0


def test_the_fleet_holds_busy_idle_and_free_gpus_and_mig_instances() -> None:
    assert average(during(samples(), pool="training"), "util") > 0.6
    assert average(during(samples(), pool="notebooks", team="research", mig_id=None), "util") < 0.02
    free = [e for e in samples() if e.pod is None]
    assert free
    assert all(e.team is None and e.model is None for e in free)
    assert {e.util_source for e in samples() if e.mig_id is not None} == {"gr_engine_active"}
    assert {e.cluster for e in samples()} == {"fra1", "iad2", "lab"}


def test_a_saturated_engine_queues_while_its_gpus_look_harmless() -> None:
    model = "llama-3.3-70b-instruct"
    before, after = (
        during(samples(), model=model),
        during(samples(plan("engine_saturation", 5, model=model)), model=model),
    )
    assert average(before, "requests_waiting") < 2 < 50 < average(after, "requests_waiting")
    assert average(after, "requests_running") > 250
    assert average(before, "kv_cache_usage") < 0.7
    assert average(after, "kv_cache_usage") > 0.9
    assert max(e.preemptions or 0 for e in after) > 50
    assert max(e.preemptions or 0 for e in before) == 0
    assert abs(average(after, "util") - average(before, "util")) < 0.05


def test_a_saturated_pool_runs_at_its_limit() -> None:
    after = during(samples(plan("gpu_saturation", 1.0, pool="serving-small")), pool="serving-small", model="qwen3-8b")
    assert average(after, "util") > 0.97
    assert any(e.throttled for e in after)
    assert average(after, "temperature_c") > average(during(samples(), model="qwen3-8b"), "temperature_c") + 5


def test_an_idle_pool_stays_held() -> None:
    after = during(samples(plan("gpu_idle", 0, pool="training", team="coding")), pool="training", team="coding")
    assert average(after, "util") < 0.02
    assert all(e.pod and (e.memory_used_bytes or 0) > 1e10 for e in after)


def test_a_fault_shows_its_xid_on_one_gpu_and_stops_the_job_on_its_node() -> None:
    target = next(g for g in Company.default(3).gpus if g.node == "iad2-h100-01" and g.index == 3)
    for xid in (79, 48):
        found = samples(plan("gpu_fault", xid, node=target.node, gpu_uuid=target.uuid))
        on = during(found, gpu_uuid=target.uuid)
        assert {e.xid for e in on} == {xid}
        assert {e.gpu_uuid for e in found if e.xid} == {target.uuid}
        assert {e.ecc_uncorrected for e in on} == ({2} if xid == 48 else {0})
        assert average(during(found, node=target.node), "util") == 0
        assert average(during(found, node="iad2-a100-01"), "util") > 0.5
        assert found[-1].xid == 0


def test_gpu_events_change_no_other_gpu() -> None:
    found = samples(plan("gpu_idle", 0, pool="training", team="coding"))
    assert [e for e in found if e.team != "coding"] == [e for e in samples() if e.team != "coding"]
