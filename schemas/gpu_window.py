"""Aggregates of GPU samples: one row per GPU and window, and per roll-up and window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.columns import IntArray
from schemas.series import Series

STATES: tuple[str, ...] = ("busy", "held_idle", "free", "unhealthy")
"""What a GPU was doing. unhealthy: a hardware-class XID or new uncorrectable errors; free: no pod, team or model holds
it and its memory is nearly empty; held_idle: held, utilisation below the idle threshold and no request running;
busy: everything else."""

SUMS: tuple[str, ...] = (
    "samples",
    "gpus",  # 1 in a GPU's own row; distinct GPUs in a roll-up
    *(f"{state}_ms" for state in STATES),  # GPU-milliseconds by state
    *(f"{state}_pico" for state in STATES),  # cost of those, pico-USD
    "unpriced_ms",  # GPU-milliseconds without a price
    "util_ppm_ms",  # utilisation x 1e6 x milliseconds; divide by util_ms
    "util_ms",
    "memory_used_bytes",  # mean over the window's samples, summed over GPUs
    "memory_total_bytes",
    "power_mw",  # mean milliwatts, summed over GPUs
    "throttled_samples",
    "xid_events",  # changes of the last XID to another non-zero value
    "xid_hardware_events",  # those of the hardware class
    "ecc_events",  # increase of the uncorrectable counter
    "preemptions",  # increase of the counter
    "running_milli",  # mean running requests x 1000, summed
    "waiting_milli",
    "kv_cache_samples",
    "kv_cache_ppm",  # sum over samples of KV-cache usage x 1e6
    "tokens_milli",  # mean tokens per second x 1000, summed
)
"""Summed columns of `GpuWindows.sums`. All integers, so a roll-up is exact."""

COLUMN: dict[str, int] = {name: i for i, name in enumerate(SUMS)}

MAXIMA: tuple[str, ...] = ("util", "temperature_c", "requests_running", "requests_waiting", "kv_cache_usage")
"""Columns of `GpuWindows.maxima`: the largest sample of the window; NaN where none was reported."""

ROLLUPS: tuple[tuple[str, ...], ...] = (
    (), ("cluster",), ("cluster", "node"), ("pool",), ("gpu_model",), ("team",), ("model",),
)  # fmt: skip
"""Dimensions by which GPUs are rolled up."""

GPU_SERIES_DIMS: tuple[str, ...] = ("cluster", "node", "gpu", "mig_id")
"""Dimensions of a single GPU's series; `gpu` is the UUID, or the index where there is none."""

OWNER_DIMS: tuple[str, ...] = ("gpu_model", "pool", "namespace", "pod", "team", "model", "util_source")
"""What the GPU's last sample in the window said about it."""


@dataclass(slots=True)
class GpuWindows:
    """One closed window: a row per GPU, then a row per roll-up.

    Parameters
    ----------
    start_ns, end_ns, version
        As in `RequestWindows`.
    series
        Series of each row, shape (n,).
    is_gpu
        True for a single GPU's row, False for a roll-up.
    sums
        int64, shape (n, len(SUMS)).
    maxima
        float64, shape (n, len(MAXIMA)).
    owners
        By name of `OWNER_DIMS`: text of each row, empty for roll-ups and where not reported.
    xids
        Newly seen XID codes of each row, in order of appearance.
    """

    start_ns: int
    end_ns: int
    version: int
    series: list[Series]
    is_gpu: npt.NDArray[np.bool_]
    sums: IntArray
    maxima: npt.NDArray[np.float64]
    owners: dict[str, list[str]]
    xids: list[tuple[int, ...]]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.series)

    def column(self, name: str) -> IntArray:
        """One summed column, shape (n,)."""
        return self.sums[:, COLUMN[name]]

    def maximum(self, name: str) -> npt.NDArray[np.float64]:
        """One column of maxima, shape (n,)."""
        return self.maxima[:, MAXIMA.index(name)]
