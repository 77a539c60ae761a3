"""Aggregates of requests: one row per series and window."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from schemas.cause import CAUSES
from schemas.columns import IntArray
from schemas.series import Series

ERROR_SUMS: tuple[str, ...] = tuple(f"errors_{c.label}" for c in CAUSES)
"""Failed requests by cause, in the order of `CAUSES`."""

SUMS: tuple[str, ...] = (
    "requests",
    "errors",
    *ERROR_SUMS,
    "retries",  # attempt > 1
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "usage_missing",  # successful requests that reported no tokens at all
    "cost_pico",
    "cost_input_pico",
    "cost_cache_read_pico",
    "cost_cache_write_pico",
    "cost_output_pico",
    "cost_reasoning_pico",
    "unpriced_requests",
    "unpriced_tokens",
    "wasted_pico",  # cost of failed requests and of retries
    "missed_cache_pico",
    "missed_cache_requests",
    "outcomes",  # requests that reported an outcome
    "outcome_value_pico",
    "quota_reports",  # requests that reported a rate limit and what remains of it
    "quota_used_ppm",  # sum over those of 1e6 * (1 - remaining / limit), the tighter of requests and tokens
    "rejected",  # dead letters of the source at that time; only in the total series
    "late",  # events that arrived after the window's close, within the allowed lateness
)
"""Names of the summed columns of `RequestWindows.sums`, in order. All integers, so merging is exact."""

COLUMN: dict[str, int] = {name: i for i, name in enumerate(SUMS)}
"""Column number by name."""

SKETCHES: tuple[str, ...] = ("latency_ms", "ttft_ms", "tpot_ms")
"""Distributions kept per series and window: latency, time to first token, time per output token
(`(latency - ttft) / (output_tokens - 1)`), successful requests only. See `schemas.sketch`."""

QUANTILES: tuple[float, ...] = (0.5, 0.95, 0.99)
"""Quantiles computed of each."""


@dataclass(slots=True)
class SparseSketches:
    """Buckets of many sketches in coordinate form, shape (m,) each, sorted by (row, bucket), no duplicates."""

    rows: IntArray
    buckets: npt.NDArray[np.int16]
    counts: IntArray


@dataclass(slots=True)
class RequestWindows:
    """Closed windows of one shard: one row per series that had requests.

    Parameters
    ----------
    start_ns, end_ns
        The window, [start, end), nanoseconds since the epoch.
    version
        1 at the close; 2 when late events changed it, written once at the end of the allowed lateness.
    series
        Series of each row, shape (n,), sorted by `Series.identity`.
    sums
        int64, shape (n, len(SUMS)).
    sketches
        By name of `SKETCHES`.
    quantiles
        By name of `SKETCHES`: float64, shape (n, len(QUANTILES)), NaN where nothing was measured.
    """

    start_ns: int
    end_ns: int
    version: int
    series: list[Series]
    sums: IntArray
    sketches: dict[str, SparseSketches]
    quantiles: dict[str, npt.NDArray[np.float64]]
    ids: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    """`Series.identity` of each row, so that it need not be computed again."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.series)

    def column(self, name: str) -> IntArray:
        """One summed column, shape (n,)."""
        return self.sums[:, COLUMN[name]]
