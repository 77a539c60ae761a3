"""Mergeable quantiles with bounded relative error: the DDSketch bucket scheme.

A positive value v falls into bucket ceil(log(v) / log(gamma)), with gamma = (1 + a) / (1 - a) for the relative
accuracy a. Buckets are counts, so sketches merge by addition, in any order, and a quantile of a roll-up is right
where an average of percentiles is not.

References
----------
C. Masson, J. E. Rim, H. K. Lee (2019), DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees, PVLDB 12(12), sections 2.1 and 2.2.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RELATIVE_ACCURACY = 0.01
"""Promised relative error of a quantile."""

GAMMA = (1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY)
LOG_GAMMA = math.log(GAMMA)

MIN_BUCKET = -461
"""Bucket of values at or below about 1e-4 (milliseconds); smaller ones are counted here."""

MAX_BUCKET = 1151
"""Bucket of values at or above about 1e10; larger ones are counted here."""


def bucket_of(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    """Bucket numbers of non-negative values. Shape (n,) in, (n,) out."""
    with np.errstate(divide="ignore"):
        raw = np.ceil(np.log(values) / LOG_GAMMA)
    return np.clip(raw, MIN_BUCKET, MAX_BUCKET).astype(np.int16)


def value_of(buckets: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Representative value of each bucket: within `RELATIVE_ACCURACY` of every value that fell into it."""
    return np.asarray(2 * np.exp(buckets.astype(np.float64) * LOG_GAMMA) / (1 + GAMMA))


def quantiles(
    rows: npt.NDArray[np.integer],
    buckets: npt.NDArray[np.integer],
    counts: npt.NDArray[np.int64],
    n_rows: int,
    qs: tuple[float, ...],
) -> npt.NDArray[np.float64]:
    """Quantiles of many sketches at once.

    Parameters
    ----------
    rows, buckets, counts
        Sparse buckets in coordinate form, shape (m,), sorted by (row, bucket) without duplicates.
    n_rows
        Number of sketches.
    qs
        Quantiles in [0, 1].

    Returns
    -------
    ndarray
        Shape (n_rows, len(qs)); NaN for an empty sketch. The value of rank floor(q * (n - 1)), as in the paper.
    """
    out = np.full((n_rows, len(qs)), np.nan)
    if len(rows) == 0:
        return out
    running = np.cumsum(counts)
    first = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    last = np.r_[first[1:], len(rows)] - 1
    before = running[first] - counts[first]
    totals = running[last] - before
    for column, q in enumerate(qs):
        rank = np.floor(q * (totals - 1)).astype(np.int64) + before
        out[rows[first], column] = value_of(buckets[np.searchsorted(running, rank, side="right")])
    return out
