"""Requests that got slower: 95th percentiles of latency and time to first token."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import SELF_FREEZE, column, horizon_keep
from detectors.shift import Horizon, Shift
from detectors.tail import score_of

HALF_TRUST = 15.0
"""Requests at which a row's percentile counts half of a well-filled one."""


class LatencyRegression(Detector):
    """Shift of the logarithm of p95 latency and p95 time to first token against the series' own level.

    A row with n requests weighs n / (n + 15), as its percentile is worth that much more than one of few requests.

    Parameters
    ----------
    horizons_s
        Lengths over which log p95 is averaged, seconds.
    half_lives_s
        Half-life of the baseline of each horizon.
    warm_up_s
        Measured time before any score.
    min_ratio
        Growth of the percentile below which nothing is reported.
    max_freeze_s
        Longest time for which an open incident keeps its level from being learned.
    """

    kind = "latency_regression"
    stream = "requests"
    cadence = "interval"
    features = ("latency_ms_p95", "ttft_ms_p95", "requests", "errors")
    unit = "ms"
    effect_unit = "ms"

    def __init__(
        self,
        horizons_s: tuple[float, ...] = (60.0, 180.0, 600.0, 1_800.0),
        half_lives_s: tuple[float, ...] = (43_200.0, 43_200.0, 43_200.0, 43_200.0),
        warm_up_s: float = 3_600.0,
        min_ratio: float = 1.25,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.horizons_s = horizons_s
        self.half_lives_s = half_lives_s
        self.warm_up_s = warm_up_s
        self.min_ratio = min_ratio
        self.max_freeze_s = max_freeze_s
        pairs = zip(horizons_s, half_lives_s, strict=True)
        columns = tuple(Horizon(length, half, warm_up_s) for length, half in pairs)
        self._shift = Shift(columns, signals=2, prior_spread=0.3, least_spread=0.02, logged=True)
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return self._shift.fresh(n) | {"requests_sum": np.zeros((n, len(self.horizons_s)))}

    def _row(self, x: Features) -> tuple[FloatArray, FloatArray, FloatArray]:
        good = np.maximum(np.nan_to_num(column(x, "requests")) - np.nan_to_num(column(x, "errors")), 0.0)
        trust = (good / (good + HALF_TRUST))[:, None]
        values = np.stack([column(x, "latency_ms_p95"), column(x, "ttft_ms_p95")], axis=1)
        logs = np.log(np.where(values > 0, values, np.nan))
        known = np.isfinite(logs) & (trust > 0)
        return np.where(known, logs * trust, np.nan), np.where(known, trust, np.nan), column(x, "window_s")

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        num, den, window_s = self._row(x)
        shifts = self._shift.judge(self.state, num, den, window_s)
        width = len(self.horizons_s)
        # A horizon remembers: the percentile of the row itself must be high as well.
        with np.errstate(invalid="ignore"):
            row = np.repeat(num / den, width, axis=1) - shifts.baseline
            gate = (shifts.x >= math.log(self.min_ratio)) & (row >= math.log(self.min_ratio) / 2)
        gate &= np.isfinite(shifts.decades)
        decades = np.where(gate, shifts.decades - math.log10(3.0), -np.inf)
        best = np.where(gate.any(axis=1), np.argmax(decades, axis=1), min(1, width - 1))[:, None]
        observed = np.exp(np.take_along_axis(shifts.level, best, axis=1)[:, 0])
        expected = np.exp(np.take_along_axis(shifts.baseline, best, axis=1)[:, 0])
        effect = np.maximum(np.nan_to_num(observed - expected), 0.0)
        volume = np.take_along_axis(self._requests(x, window_s), best % width, axis=1)[:, 0]
        score = score_of(-np.max(decades, axis=1))
        detail = [""] * len(score)
        for slot in np.flatnonzero(score > 0):
            detail[slot] = (
                "95th percentile of latency" if best[slot, 0] < width else "95th percentile of time to first token"
            )
        return Judgement(score, observed, expected, np.full(len(score), np.nan), effect, volume, detail)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; frozen slots, and rows that score high, do not move the baseline."""
        num, den, window_s = self._row(x)
        wanted = self.judged(x).score >= SELF_FREEZE
        if frozen is not None:
            wanted |= frozen
        self.state["requests_sum"] = self._requests(x, window_s)
        self._shift.learn(self.state, num, den, window_s, wanted, self.max_freeze_s)

    def _requests(self, x: Features, window_s: FloatArray) -> FloatArray:
        requests = np.nan_to_num(column(x, "requests"))[:, None]
        return np.asarray(self.state["requests_sum"] * horizon_keep(window_s, self.horizons_s) + requests)
