"""GPUs that fill up, and GPUs that are held for nothing."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from detectors.base import Detector, Judgement
from detectors.gpu_idle import GpuIdle
from detectors.gpu_saturation import GpuSaturation

MINUTE_MS = 60_000.0
USD_MS = 1e6
"""Pico-USD per millisecond of a GPU at 3.60 USD per hour."""


def judge(detector: Detector, row: dict[str, float]) -> Judgement:
    return detector.score_many({name: np.array([value]) for name, value in (row | {"window_s": 60.0}).items()})


def run(detector: Detector, rows: list[dict[str, float]]) -> list[Judgement]:
    out = []
    for row in rows:
        out.append(judge(detector, row))
        detector.learn_many({name: np.array([value]) for name, value in (row | {"window_s": 60.0}).items()})
    return out


def scores(found: list[Judgement]) -> list[float]:
    return [float(one.score[0]) for one in found]


# ---------------------------------------------------------------------- saturation
def full(util: float, memory: float = 0.9, *, weak: bool = False, serves: bool = True) -> dict[str, float]:
    return {
        "samples": 12, "util_ppm_ms": util * 1e6 * MINUTE_MS, "util_ms": MINUTE_MS,
        "memory_used_bytes": memory * 80e9, "memory_total_bytes": 80e9,
        "requests_running_max": 20.0 if serves else np.nan, "gpu_util_ms": MINUTE_MS if weak else 0.0,
    }  # fmt: skip


def noise(level: float, minutes: int, seed: int = 1, *, sigma: float = 0.04) -> list[float]:
    """A level with slowly wandering noise (an AR(1) process)."""
    rng, wander, out = np.random.default_rng(seed), 0.0, []
    for _ in range(minutes):
        wander = 0.8 * wander + rng.normal(0, sigma * 0.6)
        out.append(float(np.clip(level + wander, 0, 1)))
    return out


def test_a_ramp_is_found_before_the_gpu_is_full() -> None:
    calm = noise(0.5, 120)
    ramp = [min(0.5 + 0.5 * i / 80 + wiggle - 0.5, 1.0) for i, wiggle in enumerate(noise(0.5, 80, seed=2, sigma=0.02))]
    found = scores(run(GpuSaturation(), [full(u) for u in calm + ramp]))
    assert max(found[:120]) < 0.3
    first = next(i for i, score in enumerate(found) if score >= 0.5) - 120
    exhausted = 0.47 / 0.5 * 80
    assert 8 <= exhausted - first <= 30, f"found {exhausted - first:.0f} min ahead"


def test_the_forecast_carries_a_band() -> None:
    found = run(GpuSaturation(), [full(0.3 + 0.01 * i + 0.002 * (i % 3)) for i in range(50)])
    detail = (found[-1].detail or [""])[0]
    assert detail.startswith("utilisation 79%, 97% in 1")
    assert "min (1" in detail
    assert " to " in detail


def test_a_sustained_level_scores_after_five_minutes_and_is_over_when_it_falls() -> None:
    found = scores(run(GpuSaturation(), [full(0.6)] * 60 + [full(0.97)] * 12 + [full(0.6)] * 40))
    assert found[60] < 0.5 <= found[64]
    assert found[-1] < 0.2


def test_a_duty_cycle_has_the_higher_bar() -> None:
    rows = [full(0.6, weak=True)] * 60 + [full(0.97, weak=True)] * 30
    assert max(scores(run(GpuSaturation(), rows))) < 0.5
    found = scores(run(GpuSaturation(), [full(0.6, weak=True)] * 60 + [full(1.0, weak=True)] * 30))
    assert found[60 + 5] < 0.5
    assert found[60 + 16] >= 0.5


def test_a_training_job_s_duty_cycle_opens_nothing() -> None:
    rows = [full(0.0, weak=True, serves=False)] * 30 + [full(1.0, weak=True, serves=False)] * 300
    assert max(scores(run(GpuSaturation(), rows))) < 0.5


def test_a_series_that_is_always_full_becomes_normal() -> None:
    found = scores(run(GpuSaturation(max_freeze_s=7_200.0), [full(0.97)] * 900))
    assert max(found[:120]) >= 0.5
    assert max(found[-100:]) < 0.2


def test_preallocated_memory_is_no_saturation_but_growing_memory_is() -> None:
    assert max(scores(run(GpuSaturation(), [full(0.5, memory=0.98)] * 200))) == 0
    found = run(GpuSaturation(), [full(0.5, memory=min(0.5 + 0.008 * i + 0.002 * (i % 2), 1.0)) for i in range(58)])
    assert scores(found)[-1] >= 0.5
    assert (found[-1].detail or [""])[0].startswith("memory 9")


@pytest.mark.parametrize("level", [0.3, 0.75, 0.88])
def test_wandering_utilisation_raises_no_alarm(level: float) -> None:
    n = 40
    series = np.array([noise(level, 600, seed=s) for s in range(n)])
    detector = GpuSaturation()
    detector.resize(n)
    high = 0
    for i in range(600):
        ones = np.ones(n)
        x = {name: ones * value for name, value in full(0.5).items()} | {"window_s": ones * 60}
        x["util_ppm_ms"] = np.minimum(series[:, i], 0.94) * 1e6 * MINUTE_MS
        high += int((detector.score_many(x).score >= 0.5).sum())
        detector.learn_many(x)
    assert high <= n * 600 // 1_000, f"{high} of {n * 600} rows"


def _acme(metric: str, above: float) -> float:
    """Share of DCGM samples of a real training cluster with the metric at or above a value."""
    root = os.environ.get("TIDEGAUGE_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    path = folder / "gpu" / "acme_gpu_cdf.csv.gz"
    if not path.exists():
        pytest.skip(f"the Acme distributions are not at {path}; set TIDEGAUGE_DATA")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["cluster"], row["metric"]) == ("kalos", metric)]
    below = [float(row["cumulative_pct"]) for row in rows if float(row["value"]) < above]
    return 1 - max(below, default=0.0) / 100


def test_a_duty_cycle_is_at_the_top_most_of_the_time_on_a_real_cluster() -> None:
    assert _acme("gpu_util_pct", 99.0) > 0.4, (
        "a rule on gpu_util would alarm on two GPUs in five of this training cluster"
    )
    assert _acme("sm_active_pct", 95.0) < 0.06, "where SM activity is measured, the top is rare"


# ---------------------------------------------------------------------- idle
def use(idle: float, busy: float, free: float = 0.0, *, priced: bool = True) -> dict[str, float]:
    """A minute of so many GPUs in each state."""
    row = {"held_idle_ms": idle * MINUTE_MS, "busy_ms": busy * MINUTE_MS, "free_ms": free * MINUTE_MS}
    row["held_idle_pico"] = row["held_idle_ms"] * USD_MS if priced else 0.0
    row["unpriced_ms"] = 0.0 if priced else sum((idle, busy, free)) * MINUTE_MS
    return row | {"unhealthy_ms": 0.0, "gpus": idle + busy + free}


def test_a_held_gpu_is_idle_after_half_an_hour_of_it() -> None:
    found = scores(run(GpuIdle(), [use(1, 0)] * 60))
    assert max(found[:29]) == 0
    assert found[30] >= 0.5


def test_idle_gpus_are_money() -> None:
    found = run(GpuIdle(), [use(6, 2, free=3)] * 120)[-1]
    assert found.observed[0] == pytest.approx(6, rel=0.02)
    assert found.impact_usd_per_hour[0] == pytest.approx(6 * 3.6, rel=0.02)
    assert found.detail == ["6.0 of 8.0 held GPUs idle over 30 min, 21.60 USD per hour, 3.0 more are free"]


def test_idle_gpus_without_a_price_have_no_impact_but_a_number() -> None:
    found = run(GpuIdle(), [use(6, 2, priced=False)] * 60)[-1]
    assert np.isnan(found.impact_usd_per_hour[0])
    assert found.score[0] >= 0.5
    assert found.effect[0] > 5


def test_free_gpus_are_not_held_for_nothing() -> None:
    assert max(scores(run(GpuIdle(), [use(0, 0, free=8)] * 120))) == 0
    assert max(scores(run(GpuIdle(), [use(1, 7, free=8)] * 120))) == 0


def test_usual_waste_is_waste_all_the_same() -> None:
    assert min(scores(run(GpuIdle(), [use(8, 1)] * 3_000))[60:]) >= 0.5


def test_work_that_starts_again_ends_it_within_minutes() -> None:
    found = scores(run(GpuIdle(), [use(8, 0)] * 120 + [use(0, 8)] * 10))
    assert found[119] >= 0.5
    assert found[129] < 0.2


def test_a_gpu_that_does_not_report_is_not_idle() -> None:
    found = scores(run(GpuIdle(), [use(1, 0)] * 60 + [use(0, 0)] * 5))
    assert max(found[60:]) == 0
