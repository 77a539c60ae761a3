"""Spend that rises beyond what this series usually does."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import SELF_FREEZE, column
from detectors.shift import Horizon, Shift
from detectors.tail import score_of
from schemas.money import PICO_PER_USD

MAX_UNPRICED = 0.05
"""Share of requests without a price above which spend counts as not measured."""

TRIES = math.log10(3.0)
"""Factors of ten taken off because the best of several strongly correlated horizons counts."""


class CostSpike(Detector):
    """Spend per time on a log scale, judged at several horizons against the series' own recent past.

    Falling spend scores 0: saving money is no incident. More users are spend, too: a proportional growth of requests
    scores, and the explanation names the factor.

    Parameters
    ----------
    horizons_s
        Lengths over which spend is averaged, seconds.
    half_lives_s
        Half-life of the baseline of each horizon.
    warm_ups_s
        Spend that must have been seen before each horizon scores.
    min_ratio
        Spend must have grown by this factor at the horizon.
    max_freeze_s
        Longest time for which an open incident keeps its level from being learned.

    References
    ----------
    T. Finch (2009), Incremental calculation of weighted mean and variance, section 9.
    """

    kind = "cost_spike"
    stream = "requests"
    cadence = "interval"
    features = ("cost_pico", "requests", "unpriced_requests")
    unit = "USD per hour"
    effect_unit = "USD per hour"

    def __init__(
        self,
        horizons_s: tuple[float, ...] = (60.0, 180.0, 600.0, 1_800.0),
        half_lives_s: tuple[float, ...] = (2_700.0, 2_700.0, 7_200.0, 86_400.0),
        warm_ups_s: tuple[float, ...] = (1_800.0, 1_800.0, 3_600.0, 43_200.0),
        min_ratio: float = 1.5,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.horizons_s = horizons_s
        self.half_lives_s = half_lives_s
        self.warm_ups_s = warm_ups_s
        self.min_ratio = min_ratio
        self.max_freeze_s = max_freeze_s
        columns = zip(horizons_s, half_lives_s, warm_ups_s, strict=True)
        self._shift = Shift(tuple(Horizon(*c) for c in columns), least_spread=0.05)
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return self._shift.fresh(n) | {"requests_sum": np.zeros((n, len(self.horizons_s)))}

    def _row(self, x: Features) -> tuple[FloatArray, FloatArray, FloatArray]:
        window_s = column(x, "window_s")
        cost = column(x, "cost_pico")
        # Spend is not known where requests have no price: such a row neither scores nor teaches.
        unpriced = np.nan_to_num(x.get("unpriced_requests", np.zeros(len(cost))))
        known = np.isfinite(cost) & (unpriced <= MAX_UNPRICED * np.nan_to_num(column(x, "requests")))
        cost = np.where(known, cost, np.nan)
        seconds = np.where(known, window_s, np.nan)
        return cost[:, None], seconds[:, None], window_s

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        cost, seconds, window_s = self._row(x)
        shifts = self._shift.judge(self.state, cost, seconds, window_s)
        # The row itself must be high as well: a horizon remembers a spike that is over.
        now_high = shifts.level[:, :1] >= shifts.baseline * math.sqrt(self.min_ratio)
        gate = (shifts.x >= math.log(self.min_ratio)) & now_high & np.isfinite(shifts.decades)
        decades = np.where(gate, shifts.decades - TRIES, -np.inf)
        best = np.argmax(decades, axis=1)
        # Where nothing scores, report the second horizon: a few rows, so that sparklines are calm.
        best = np.where(gate.any(axis=1), best, min(1, shifts.x.shape[1] - 1))[:, None]
        hourly = 3600.0 / PICO_PER_USD
        observed = np.take_along_axis(shifts.level, best, axis=1)[:, 0] * hourly
        expected = np.take_along_axis(shifts.baseline, best, axis=1)[:, 0] * hourly
        impact = np.maximum(np.nan_to_num(observed - expected), 0.0)
        requests = np.nan_to_num(column(x, "requests"))[:, None]
        volume = np.take_along_axis(self._requests(requests, window_s), best, axis=1)[:, 0]
        score = score_of(-np.max(decades, axis=1))
        return Judgement(score, observed, expected, impact, impact.copy(), volume)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; frozen slots, and rows that score high, do not move the baseline."""
        cost, seconds, window_s = self._row(x)
        wanted = self.judged(x).score >= SELF_FREEZE
        if frozen is not None:
            wanted |= frozen
        self.state["requests_sum"] = self._requests(np.nan_to_num(column(x, "requests"))[:, None], window_s)
        self._shift.learn(self.state, cost, seconds, window_s, wanted, self.max_freeze_s)

    def _requests(self, requests: FloatArray, window_s: FloatArray) -> FloatArray:
        keep = np.maximum(0.0, 1.0 - window_s[:, None] / np.asarray(self.horizons_s))
        return np.asarray(self.state["requests_sum"] * keep + requests)
