"""Quantiles of roll-ups in SQL: sketches merge, percentiles do not."""

from __future__ import annotations

from schemas.request_window import SKETCHES
from schemas.sketch import GAMMA, LOG_GAMMA


def merged_quantile(sketch: str, q: float) -> str:
    """SQL expression for a quantile over every row of `request_windows` that a GROUP BY brings together.

    The buckets of all rows are added up; the bucket of rank floor(q * (n - 1)) is turned into its value, as in
    `schemas.sketch.quantiles`. NULL where nothing was measured.

    Parameters
    ----------
    sketch
        Entry of `schemas.request_window.SKETCHES`.
    q
        Quantile in [0, 1].

    Examples
    --------
    >>> merged_quantile("latency_ms", 0.95).startswith("if(sum(arraySum(latency_ms_counts)) = 0, NULL")
    True
    """
    if sketch not in SKETCHES or not 0 <= q <= 1:
        raise ValueError(f"expected one of {SKETCHES} and a quantile in [0, 1], got {sketch!r} and {q}")
    total = f"sum(arraySum({sketch}_counts))"
    merged = f"sumMap({sketch}_buckets, {sketch}_counts)"
    rank = f"floor({q} * ({total} - 1))"
    bucket = f"tupleElement({merged}, 1)[arrayFirstIndex(c -> c > {rank}, arrayCumSum(tupleElement({merged}, 2)))]"
    return f"if({total} = 0, NULL, 2 * exp({bucket} * {LOG_GAMMA!r}) / {1 + GAMMA!r})"
