"""How long the GPU windows of a large fleet take to fold, close and save.

Run: ``python benchmarks/gpu_windows.py [GPUS]`` from the repository root.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flows.windows.gpus import GpuMerge, fold_gpus, gpu_features
from schemas.columns import GPU_DIMENSIONS, Coded, GpuColumns

NS = 1_000_000_000
WINDOW_NS = 10 * NS
START_NS = 1_700_000_000 * NS
SAMPLES_PER_WINDOW = 2
WINDOWS = 20


def coded(numbers: np.ndarray, prefix: str) -> Coded:
    values, codes = np.unique(numbers, return_inverse=True)
    return Coded(codes.astype(np.int32), [f"{prefix}{value}" for value in values.tolist()])


def fleet(gpus: int, start_ns: int) -> GpuColumns:
    """One window's samples of a fleet of eight-GPU nodes, all dimensions filled."""
    gpu = np.tile(np.arange(gpus), SAMPLES_PER_WINDOW)
    n = len(gpu)
    round_ns = np.repeat(np.arange(SAMPLES_PER_WINDOW), gpus) * (WINDOW_NS // SAMPLES_PER_WINDOW)
    number_of = {
        "cluster": gpu // 2048, "node": gpu // 8, "gpu_uuid": gpu, "gpu_index": gpu % 8, "mig_id": gpu * 0,
        "gpu_model": gpu % 3, "pool": gpu % 12, "namespace": gpu % 20, "pod": gpu, "team": gpu % 25,
        "model": gpu % 9, "util_source": gpu * 0,
    }  # fmt: skip
    full = np.full
    return GpuColumns(
        topic="ai.gpus", partition=0, offsets=np.arange(n), positions=np.zeros(n, np.int64),
        at_ns=start_ns + round_ns + gpu * 1000, lateness=np.zeros(n, np.uint8),
        dims={dim: coded(number_of[dim], "" if dim == "gpu_index" else f"{dim}-") for dim in GPU_DIMENSIONS},
        util=(gpu % 100) / 100, memory_used_bytes=full(n, 60 << 30), memory_total_bytes=full(n, 80 << 30),
        power_w=full(n, 412.5), power_limit_w=full(n, 700.0), temperature_c=full(n, 61.0),
        xid=np.zeros(n, np.int64), ecc_uncorrected=np.zeros(n, np.int64), throttled=np.zeros(n, np.int8),
        requests_running=full(n, 12.0), requests_waiting=np.zeros(n), kv_cache_usage=full(n, 0.4),
        preemptions=full(n, 3), tokens_per_s=full(n, 900.0), usd_per_hour_pico=full(n, 2_990_000_000_000),
    )  # fmt: skip


def main() -> None:
    gpus = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    merge = GpuMerge(window_ns=WINDOW_NS, allowed_lateness_ns=60 * NS)
    took: dict[str, list[float]] = {"fold": [], "close": [], "save": [], "features": []}

    def timed(name: str, since: float) -> None:
        took[name].append(1e3 * (time.perf_counter() - since))

    rows = 0
    for i in range(WINDOWS):
        columns = fleet(gpus, START_NS + i * WINDOW_NS)
        since = time.perf_counter()
        partials = fold_gpus(columns, window_ns=WINDOW_NS)
        timed("fold", since)
        merge.add(partials)
        since = time.perf_counter()
        closed = merge.advance(START_NS + (i + 1) * WINDOW_NS)
        timed("close", since)
        since = time.perf_counter()
        saved = merge.snapshot()
        timed("save", since)
        since = time.perf_counter()
        gpu_features(closed[0])
        timed("features", since)
        rows = len(closed[0])
    print(f"{gpus} GPUs x {SAMPLES_PER_WINDOW} samples, {rows} rows per window, state {len(saved) / 1e6:.1f} MB")
    for name, times in took.items():
        # From the eighth window on, every close accounts two windows: the newest, and the one now final.
        steady = np.array(times[8:])
        print(f"{name:>9}: median {np.median(steady):6.1f} ms, best {steady.min():6.1f} ms")


if __name__ == "__main__":
    main()
