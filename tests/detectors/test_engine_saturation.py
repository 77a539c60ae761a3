"""A standing queue is found, a busy engine is left alone; end to end over a real load test of vLLM."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from detectors.engine_saturation import EngineSaturation
from flows.windows.gpus import GpuMerge, fold_gpus, gpu_features
from schemas.columns import GPU_DIMENSIONS, MISSING, Coded, FloatArray, GpuColumns
from schemas.series import Series

NS = 1_000_000_000
SAID: dict[str, float] = {
    "samples": 2, "running_milli": 40e3, "waiting_milli": 0.0, "requests_running_max": 44.0,
    "requests_waiting_max": 0.0, "kv_cache_samples": 2, "kv_cache_ppm": 2 * 0.4e6, "preemptions": 0.0,
}  # fmt: skip
"""A busy engine without a queue."""


def scores(detector: EngineSaturation, rows: Iterable[dict[str, float]]) -> list[float]:
    out = []
    for row in rows:
        out.append(detector.score_one(SAID | row))
        detector.learn_one(SAID | row)
    return out


def queue(waiting: float, **said: float) -> dict[str, float]:
    return {"waiting_milli": waiting * 1e3, "requests_waiting_max": waiting} | said


def opens(found: list[float], at: float = 0.5, rows: int = 3, of: int = 4) -> bool:
    """The judge's rule for this kind: so many of so many successive rows."""
    return any(sum(score >= at for score in found[i : i + of]) >= rows for i in range(len(found)))


# ---------------------------------------------------------------------- rules
def test_a_queue_that_stands_for_three_rowsopens() -> None:
    found = scores(EngineSaturation(), [{}] * 30 + [queue(20)] * 5)
    assert max(found[:30]) == 0
    assert opens(found[:33])
    assert found[30] < found[31] < found[32]


def test_a_moment_of_waiting_is_no_saturation() -> None:
    rows = [queue(3) if i % 20 == 0 else {} for i in range(400)]
    found = scores(EngineSaturation(), rows)
    assert max(found) < 0.5
    assert max(found[-20:]) < 0.3, "and what keeps happening becomes normal"
    assert not opens(scores(EngineSaturation(), [{}] * 30 + [queue(200)] + [{}] * 5))


def test_less_than_one_request_per_hundred_running_is_no_queue() -> None:
    assert max(scores(EngineSaturation(), [queue(3, running_milli=900e3)] * 50)) == 0


def test_running_limit_full_cache_and_preemptions_add_to_the_queue() -> None:
    detector = EngineSaturation()
    scores(detector, [{"running_milli": 250e3, "requests_running_max": 256.0}] * 6)
    at_limit = {"running_milli": 255e3, "requests_running_max": 256.0}
    alone = detector.score_one(SAID | queue(20))
    with_limit = detector.score_one(SAID | queue(20) | at_limit)
    with_cache = detector.score_one(SAID | queue(20) | at_limit | {"kv_cache_ppm": 2 * 0.97e6})
    with_all = detector.score_one(SAID | queue(20) | at_limit | {"kv_cache_ppm": 2 * 0.97e6, "preemptions": 4.0})
    assert alone < with_limit < with_cache < with_all
    assert with_limit - alone == pytest.approx(0.1, abs=0.02)


def test_preemptions_with_a_full_cache_fire_without_a_queue() -> None:
    found = scores(EngineSaturation(), [{"kv_cache_ppm": 2 * 0.96e6, "preemptions": 5.0}] * 4)
    assert found[-1] >= 0.5
    assert max(scores(EngineSaturation(), [{"kv_cache_ppm": 2 * 0.96e6}] * 30)) == 0, "a full cache alone is no harm"


def test_the_score_falls_within_a_minute_of_the_queue_s_end() -> None:
    found = scores(EngineSaturation(), [queue(50)] * 30 + [{}] * 6 + [queue(2)])
    assert found[30] == 0
    assert found[36] < 0.5


def test_an_engine_that_always_queues_becomes_normal() -> None:
    found = scores(EngineSaturation(max_freeze_s=3_600.0), [queue(50)] * 1_500)
    assert max(found[:300]) >= 0.5
    assert max(found[-300:]) < 0.2


def test_an_open_incident_does_not_become_normal_too_soon() -> None:
    detector = EngineSaturation()
    for _ in range(360):
        detector.learn_many({k: np.array([v]) for k, v in (SAID | queue(50) | {"window_s": 10.0}).items()},
                            np.array([True]))  # fmt: skip
    assert detector.score_one(SAID | queue(50)) >= 0.5


def test_rows_without_engine_metrics_say_nothing() -> None:
    gpu_only = dict.fromkeys(SAID, 0.0) | {"requests_running_max": np.nan, "requests_waiting_max": np.nan}
    detector = EngineSaturation()
    judged = detector.score_many({k: np.array([v]) for k, v in (gpu_only | {"window_s": 10.0}).items()})
    assert judged.score[0] == 0
    assert np.isnan(judged.observed[0])


def test_the_judgement_counts_waiting_requests_and_says_why() -> None:
    detector = EngineSaturation()
    scores(detector, [{"running_milli": 250e3, "requests_running_max": 256.0}] * 6)
    row = SAID | queue(60, running_milli=256e3, requests_running_max=256.0, kv_cache_ppm=2 * 0.26e6)
    judged = detector.score_many({k: np.array([v]) for k, v in (row | {"window_s": 10.0}).items()})
    assert (judged.observed[0], judged.expected[0], judged.effect[0]) == (60, 0, 60)
    assert judged.detail == ["60 waiting, 256 running (the most it runs), KV cache 26%"]


# ---------------------------------------------------------------------- the real load test
def _data(name: str) -> Path:
    root = os.environ.get("TIDEGAUGE_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    path = folder / "gpu" / name
    if not path.exists():
        pytest.skip(f"the real load test is not at {path}; set TIDEGAUGE_DATA")
    return path


@cache
def _csv(name: str) -> list[dict[str, float]]:
    with gzip.open(_data(name), "rt", encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _samples(scale: int) -> list[tuple[int, dict[str, float]]]:
    """Engine rows and device rows of one run, as two kinds of samples of one GPU, by time in ns."""
    out = []
    for row in _csv("vllm_load_test_engine.csv.gz"):
        if row["load_scale"] == scale:
            said = {
                "requests_running": row["num_running"], "requests_waiting": row["num_pending"],
                "kv_cache_usage": row["gpu_kvcache_usage"] / 100, "tokens_per_s": row["generation_throughput"],
            }  # fmt: skip
            out.append((round(row["timestamp"] * NS), said))
    for row in _csv("vllm_load_test_gpu.csv.gz"):
        if row["load_scale"] == scale:
            said = {
                "util": row["GPU_utilization"] / 100, "temperature_c": row["GPU_temperature"],
                "memory_used_bytes": row["GPU_used_mem"] * 2**20, "memory_total_bytes": row["GPU_total_mem"] * 2**20,
            }  # fmt: skip
            out.append((round(row["record_time"] * NS), said))
    return sorted(out, key=lambda one: one[0])


def _columns(samples: list[tuple[int, dict[str, float]]]) -> GpuColumns:
    n = len(samples)
    text = {"node": "server", "gpu_index": "0", "model": "llama-3.2-1b", "util_source": "gpu_util", "pod": "vllm"}

    def floats(name: str) -> FloatArray:
        return np.array([said.get(name, np.nan) for _, said in samples])

    def ints(name: str) -> np.ndarray:
        return np.array([said.get(name, MISSING) for _, said in samples]).astype(np.int64)

    return GpuColumns(
        topic="load-test", partition=0, offsets=np.arange(n), positions=np.zeros(n, np.int64),
        at_ns=np.array([at for at, _ in samples]), lateness=np.zeros(n, np.uint8),
        dims={dim: Coded(np.zeros(n, np.int32), [text.get(dim, "")]) for dim in GPU_DIMENSIONS},
        util=floats("util"), memory_used_bytes=ints("memory_used_bytes"), memory_total_bytes=ints("memory_total_bytes"),
        power_w=floats("power_w"), power_limit_w=floats("power_limit_w"), temperature_c=floats("temperature_c"),
        xid=ints("xid"), ecc_uncorrected=ints("ecc_uncorrected"), throttled=np.full(n, MISSING, np.int8),
        requests_running=floats("requests_running"), requests_waiting=floats("requests_waiting"),
        kv_cache_usage=floats("kv_cache_usage"), preemptions=ints("preemptions"), tokens_per_s=floats("tokens_per_s"),
        usd_per_hour_pico=ints("usd_per_hour_pico"),
    )  # fmt: skip


@cache
def _judged(scale: int, shift_s: float = 0.0) -> tuple[list[float], list[float], list[float]]:
    """Per window of the run, for its model: score, waiting requests, mean GPU utilisation."""
    merge = GpuMerge(window_ns=10 * NS, allowed_lateness_ns=0)
    samples = [(at + round(shift_s * NS), said) for at, said in _samples(scale)]
    merge.add(fold_gpus(_columns(samples), window_ns=10 * NS))
    detector = EngineSaturation()
    found, waiting, util = [], [], []
    for window in merge.flush():
        row = window.series.index(Series("gpus", ("model",), ("llama-3.2-1b",)))
        x = {name: values[row : row + 1] for name, values in gpu_features(window).items()}
        judged = detector.score_many(x)
        detector.learn_many(x)
        found.append(float(judged.score[0]))
        waiting.append(float(judged.observed[0]))
        util.append(float(x["util_ppm_ms"][0] / max(x["util_ms"][0], 1.0) / 1e6))
    return found, waiting, util


@pytest.mark.parametrize("shift_s", [0.0, 3.0, 9.0])
@pytest.mark.parametrize("scale", [300, 500, 700, 900, 1500])
def test_the_saturated_runs_of_the_real_load_test_are_found(scale: int, shift_s: float) -> None:
    found, waiting, _ = _judged(scale, shift_s)
    assert opens(found)
    first_queue = next(i for i, w in enumerate(waiting) if w >= 1)
    first_open = next(i for i, score in enumerate(found) if score >= 0.5)
    assert first_open - first_queue <= 2, "found within three windows of the first queue"
    assert found[-1] == 0, "and over when the queue is gone"


def test_the_unsaturated_run_of_the_real_load_test_stays_quiet() -> None:
    found, waiting, _ = _judged(100)
    assert max(found) == 0
    assert 0 < max(waiting) < 1


def test_gpu_utilisation_would_have_missed_the_real_load_test() -> None:
    saturated = {scale: _judged(scale) for scale in (300, 500, 700, 900, 1500)}
    quiet_util = max(_judged(100)[2])
    for scale, (found, _, util) in saturated.items():
        during = [u for u, score in zip(util, found, strict=True) if score >= 0.5]
        assert max(during) < 0.6, f"scale {scale}: no threshold above 60 % fires while the queue stands"
        assert max(util) < quiet_util, "the run without a queue shows the highest utilisation of all"
