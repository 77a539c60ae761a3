"""What the windows and detectors of one shard report, as the incident judge reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from schemas.columns import IntArray
from schemas.series import Series

BASELINE: tuple[str, ...] = (
    "requests", "errors", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_pico",
)  # fmt: skip
"""Columns whose usual level is kept per series, to explain a change by its factors and contributors."""

HISTORY: tuple[str, ...] = ("cost_pico", "requests", "errors", "input_tokens", "cache_read_tokens", "latency_ms_p95")
"""Features of which the last intervals are kept, for the sparkline of an incident."""

HISTORY_LENGTH = 24
"""Intervals kept of each."""


@dataclass(slots=True)
class Findings:
    """One detector's judgements of one row of every series of a shard. Arrays of shape (n,), n the shard's series.

    The fields are those of `detectors.base.Judgement`.
    """

    kind: str
    detector: str
    unit: str
    effect_unit: str
    cadence: str
    score: npt.NDArray[np.float64]
    observed: npt.NDArray[np.float64]
    expected: npt.NDArray[np.float64]
    impact_usd_per_hour: npt.NDArray[np.float64]
    effect: npt.NDArray[np.float64]
    volume: npt.NDArray[np.float64]
    detail: list[str] | None = None


@dataclass(slots=True)
class Report:
    """What one shard says about one row (a window, or an interval of windows).

    Parameters
    ----------
    shard
        Reporting shard; the judge waits until every shard has reported a row before it judges it.
    start_ns, end_ns
        The row's time, [start, end).
    series
        The shard's live series, shape (n,).
    age_s
        Event time since each series was first seen.
    current
        `BASELINE` columns of this row, int64, shape (n, len(BASELINE)); for GPUs empty.
    usual
        Their usual level per row of the same length, float64, same shape; NaN where unknown.
    errors_by_cause
        int64, shape (n, len(CAUSES)).
    findings
        One entry per detector that judged this row.
    """

    shard: str
    start_ns: int
    end_ns: int
    series: list[Series]
    age_s: npt.NDArray[np.float64]
    current: IntArray
    usual: npt.NDArray[np.float64]
    errors_by_cause: IntArray
    findings: list[Findings] = field(default_factory=list)
    history: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    """By row number, for rows that look strange: shape (len(HISTORY), HISTORY_LENGTH), oldest first, NaN before."""
    kin: dict[Series, dict[str, str]] = field(default_factory=dict)
    """Single GPUs with what their owner dimensions say, where anything looks strange: the roll-ups they belong to."""


@dataclass(slots=True)
class Progress:
    """What a shard sends to the judge: its reports, and the event time up to which it has reported everything."""

    shard: str
    watermark_ns: int
    reports: list[Report]
    evicted: int = 0
    """Series forgotten so far because they had gone silent."""
    unwatched: int = 0
    """Series turned away so far because there are too many."""
