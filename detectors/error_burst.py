"""Failures beyond what this series usually has."""

from __future__ import annotations

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import SELF_FREEZE, column
from detectors.share import Share, Shares
from detectors.tail import score_of
from schemas.cause import CAUSES, Cause
from schemas.request_window import ERROR_SUMS

TRIES = np.log10(2.0)
"""Factors of ten taken off because the best of several correlated horizons counts."""


class ErrorBurst(Detector):
    """Share of failed requests: binomial tail, with learned over-dispersion, against the series' own share.

    All causes count except `vendor_quota`, which `quota_saturation` judges: bad requests after a broken deploy are
    a burst too.

    Parameters
    ----------
    horizons_s
        Lengths of the sums, seconds; the first is one row.
    half_life_s
        Half-life of the learned share.
    warm_up_s
        Time with requests before any score.
    min_errors
        Failures within the horizon below which nothing is reported.
    min_excess
        Least excess of the share, absolute; the share must at least double as well.
    min_row_requests
        A row with at least so many requests must be high itself, so that a blip of one row does not linger.
    max_freeze_s
        Longest time for which an open incident keeps its level from being learned.
    """

    kind = "error_burst"
    stream = "requests"
    cadence = "window"
    features = ("requests", "errors", *ERROR_SUMS)
    unit = "share of requests"
    effect_unit = "failed requests per minute"

    def __init__(
        self,
        horizons_s: tuple[float, ...] = (10.0, 60.0, 300.0),
        half_life_s: float = 86_400.0,
        warm_up_s: float = 600.0,
        min_errors: float = 3.0,
        min_excess: float = 0.01,
        min_row_requests: float = 5.0,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.horizons_s = horizons_s
        self.half_life_s = half_life_s
        self.warm_up_s = warm_up_s
        self.min_errors = min_errors
        self.min_excess = min_excess
        self.min_row_requests = min_row_requests
        self.max_freeze_s = max_freeze_s
        self._share = Share(horizons_s, half_life_s, warm_up_s)
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return self._share.fresh(n)

    def _row(self, x: Features) -> tuple[FloatArray, FloatArray]:
        quota = np.nan_to_num(column(x, f"errors_{Cause.VENDOR_QUOTA.label}"))
        requests = column(x, "requests") - quota
        return np.clip(column(x, "errors") - quota, 0.0, np.maximum(requests, 0.0)), np.maximum(requests, 0.0)

    def _gate(self, shares: Shares) -> BoolArray:
        with np.errstate(invalid="ignore"):
            high = shares.share - shares.base >= np.maximum(self.min_excess, shares.base)
        # Decayed sums lose a little of each failure within the horizon.
        gate = high & (shares.hits >= 0.8 * self.min_errors) & np.isfinite(shares.decades)
        # A longer horizon remembers a burst that is over: the row itself must be high, if it can say anything.
        silent = shares.trials[:, :1] < self.min_row_requests
        gate[:, 1:] &= high[:, :1] | silent
        if gate.shape[1] > 2:
            gate[:, 2:] &= high[:, 1:2]
        return np.asarray(gate)

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        errors, requests = self._row(x)
        shares = self._share.judge(self.state, errors, requests, column(x, "window_s"))
        gate = self._gate(shares)
        decades = np.where(gate, shares.decades - TRIES, -np.inf)
        best = np.where(gate.any(axis=1), np.argmax(decades, axis=1), min(1, gate.shape[1] - 1))[:, None]
        observed = np.take_along_axis(shares.share, best, axis=1)[:, 0]
        expected = shares.base[:, 0]
        trials = np.take_along_axis(shares.trials, best, axis=1)[:, 0]
        span_s = np.maximum(np.asarray(self.horizons_s)[best[:, 0]], column(x, "window_s"))
        effect = np.maximum(np.nan_to_num(observed - expected), 0.0) * trials * 60.0 / span_s
        score = score_of(-np.max(decades, axis=1))
        return Judgement(
            score, observed, expected, np.full(len(score), np.nan), effect, trials, _causes(x, score, errors)
        )

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; frozen slots, and rows that score high, do not move the learned share."""
        errors, requests = self._row(x)
        wanted = self.judged(x).score >= SELF_FREEZE
        if frozen is not None:
            wanted |= frozen
        self._share.learn(self.state, errors, requests, column(x, "window_s"), wanted, self.max_freeze_s)


def _causes(x: Features, score: FloatArray, errors: FloatArray) -> list[str]:
    """The most frequent cause of this row with its count, for the few slots that score."""
    detail = [""] * len(score)
    causes = [c for c in CAUSES if c is not Cause.VENDOR_QUOTA]
    for slot in np.flatnonzero((score > 0) & (errors > 0)):
        counts = [float(np.nan_to_num(x[f"errors_{c.label}"][slot])) for c in causes]
        top = int(np.argmax(counts))
        if counts[top] > 0:
            detail[slot] = f"{causes[top].label} {counts[top]:.0f} of {errors[slot]:.0f}"
    return detail
