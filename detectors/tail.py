"""One scale for every detector, and the tails it is read from.

A score is a tail probability: every 0.1 is a factor of ten less likely under normal behaviour, so 0.6 is one row in
a million. All tails are computed as base-10 logarithms that stay finite where the probability itself underflows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.base import FloatArray

DECADES = 10.0
"""Factors of ten between score 0 and score 1."""

OPEN_SCORE = 0.5
"""Score at which rule-like detectors (burn rate, headroom, unpriced usage) place the condition that should page:
equal to a row of a learned detector that comes once in a hundred thousand. The judge's default threshold."""

_LN10 = math.log(10.0)
_TINY = 1e-250
"""Below this the direct formulas lose digits, and the leading term of the tail takes over."""

Array = npt.ArrayLike


def score_of(log10_p: Array) -> FloatArray:
    """Map the logarithm of a tail probability onto [0, 1]; NaN ("nothing to judge") is 0.

    Examples
    --------
    >>> score_of([0.0, -3.0, -20.0]).tolist()
    [0.0, 0.3, 1.0]
    """
    value = np.asarray(log10_p, dtype=np.float64)
    return np.where(np.isnan(value), 0.0, np.clip(-value / DECADES, 0.0, 1.0))


def log10_normal(z: Array) -> FloatArray:
    """log10 P(Z >= z) of a standard normal."""
    return _finish(special.log_ndtr(-np.asarray(z, dtype=np.float64)) / _LN10)


def log10_student(t: Array, df: Array) -> FloatArray:
    """log10 P(T >= t) of Student's t with df degrees of freedom.

    Where the probability underflows: P = I_x(df/2, 1/2) / 2 with x = df / (df + t^2), by its hypergeometric series
    (DLMF 8.17.8).
    """
    t, df = np.broadcast_arrays(np.asarray(t, dtype=np.float64), np.asarray(df, dtype=np.float64))
    p = special.stdtr(df, -t)
    a, b = df / 2, 0.5
    with np.errstate(all="ignore"):
        x = df / (df + t * t)
        log_x = np.log(df) - np.logaddexp(np.log(df), 2 * np.log(np.abs(t)))
        series = special.hyp2f1(a + b, 1.0, a + 1, np.where(p < _TINY, x, 0.0))
        far = a * log_x + b * np.log1p(-x) - np.log(a) - special.betaln(a, b) + np.log(series) - math.log(2.0)
        return _finish(np.where((p < _TINY) & (t > 0), far / _LN10, np.log10(p)))


def log10_binomial(hits: Array, trials: Array, p: Array) -> FloatArray:
    """log10 P(X >= hits) of a binomial; `hits` and `trials` may be real (quasi-binomial, decayed sums).

    The identity with the incomplete beta function is DLMF 8.17.5.
    """
    k, n, q = (np.asarray(v, dtype=np.float64) for v in np.broadcast_arrays(hits, trials, p))
    some = (k > 0) & (n > 0)
    kk, nn = np.where(some, k, 1.0), np.where(some, np.maximum(n, k), 1.0)
    with np.errstate(all="ignore"):
        value = special.betainc(kk, nn - kk + 1, q)
        log_pmf = (
            special.gammaln(nn + 1) - special.gammaln(kk + 1) - special.gammaln(nn - kk + 1)
            + special.xlogy(kk, q) + special.xlog1py(nn - kk, -q)
        )  # fmt: skip
        far = log_pmf - np.log1p(-np.minimum(_ratio((nn - kk) * q, (kk + 1) * (1 - q)), 0.999))
        out = np.where(value < _TINY, far / _LN10, np.log10(value))
    return _finish(np.where(some, out, 0.0))


def log10_binomial_low(hits: Array, trials: Array, p: Array) -> FloatArray:
    """log10 P(X <= hits) of a binomial, real arguments allowed."""
    k, n, q = (np.asarray(v, dtype=np.float64) for v in np.broadcast_arrays(hits, trials, p))
    return log10_binomial(n - k, n, 1 - q)


def log10_poisson(count: Array, mean: Array) -> FloatArray:
    """log10 P(N >= count) of a Poisson variable (DLMF 8.4.10)."""
    c, m = (np.asarray(v, dtype=np.float64) for v in np.broadcast_arrays(count, mean))
    some = c > 0
    cc = np.where(some, c, 1.0)
    with np.errstate(all="ignore"):
        value = special.gammainc(cc, m)
        far = special.xlogy(cc, m) - m - special.gammaln(cc + 1) - np.log1p(-np.minimum(m / (cc + 1), 0.999))
        out = np.where(value < _TINY, far / _LN10, np.log10(value))
    return _finish(np.where(some, out, 0.0))


def log10_poisson_low(count: Array, mean: Array) -> FloatArray:
    """log10 P(N <= count) of a Poisson variable."""
    c, m = (np.asarray(v, dtype=np.float64) for v in np.broadcast_arrays(count, mean))
    with np.errstate(all="ignore"):
        value = special.gammaincc(c + 1, m)
        far = special.xlogy(c, m) - m - special.gammaln(c + 1) - np.log1p(-np.minimum(_ratio(c, m), 0.999))
        return _finish(np.where(value < _TINY, far / _LN10, np.log10(value)))


def log10_negative_binomial(count: Array, mean: Array, size: Array) -> FloatArray:
    """log10 P(N >= count) of a negative binomial with the given mean and variance mean + mean^2 / size."""
    c, m, r = (np.asarray(v, dtype=np.float64) for v in np.broadcast_arrays(count, mean, size))
    some = c > 0
    cc = np.where(some, c, 1.0)
    with np.errstate(all="ignore"):
        q = m / (m + r)
        value = special.betainc(cc, r, q)
        log_pmf = (
            special.gammaln(cc + r) - special.gammaln(cc + 1) - special.gammaln(r)
            + special.xlogy(cc, q) + special.xlog1py(r, -q)
        )  # fmt: skip
        far = log_pmf - np.log1p(-np.minimum((cc + r) / (cc + 1) * q, 0.999))
        out = np.where(value < _TINY, far / _LN10, np.log10(value))
    return _finish(np.where(some, out, 0.0))


def log10_negative_binomial_low(count: Array, mean: Array, size: Array) -> FloatArray:
    """log10 P(N <= count) of a negative binomial with the given mean and variance mean + mean^2 / size."""
    c, m, r = (np.asarray(v, dtype=np.float64) for v in np.broadcast_arrays(count, mean, size))
    with np.errstate(all="ignore"):
        stay = r / (r + m)
        value = special.betainc(r, c + 1, stay)
        log_pmf = (
            special.gammaln(c + r) - special.gammaln(c + 1) - special.gammaln(r)
            + special.xlogy(r, stay) + special.xlog1py(c, -stay)
        )  # fmt: skip
        far = log_pmf - np.log1p(-np.minimum(_ratio(c, (c + r - 1) * (1 - stay)), 0.999))
        return _finish(np.where(value < _TINY, far / _LN10, np.log10(value)))


def _ratio(over: FloatArray, under: FloatArray) -> FloatArray:
    return np.asarray(np.where(under > 0, over / np.where(under > 0, under, 1.0), 1.0))


def _finish(log10_p: Any) -> FloatArray:
    """A probability is at most 1; minus infinity stays printable and comparable."""
    value = np.asarray(log10_p, dtype=np.float64)
    return np.where(np.isnan(value), np.nan, np.clip(value, -1e6, 0.0))
