"""Requests that stop coming."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.calibration import Calibration
from detectors.decay import SELF_FREEZE, column, half_life_keep, horizon_keep, obey
from detectors.shift import RELEARN
from detectors.tail import log10_negative_binomial_low, score_of


class TrafficDrop(Detector):
    """Arrivals over several horizons against the expected ones: lower tail of a negative binomial.

    Expected is the lower of a fast and a slow decayed rate, so that an evening's decline is no drop. The negative
    binomial's dispersion is learned per horizon. That everything falls silent at once (our own blindness) is for the
    judge to see.

    Parameters
    ----------
    horizons_s
        Lengths of the sums, seconds.
    half_lives_s
        Half-lives of the fast and the slow rate.
    warm_up_s
        Time before any score.
    min_rate_per_min
        Expected requests per minute below which silence proves nothing.
    max_ratio
        Traffic must fall to this part of the expected.
    max_freeze_s
        Longest time for which an open incident keeps its level from being learned.
    """

    kind = "traffic_drop"
    stream = "requests"
    cadence = "interval"
    features = ("requests",)
    unit = "requests per minute"
    effect_unit = "missing requests per minute"

    def __init__(
        self,
        horizons_s: tuple[float, ...] = (60.0, 180.0, 600.0),
        half_lives_s: tuple[float, float] = (2_400.0, 14_400.0),
        warm_up_s: float = 3_600.0,
        min_rate_per_min: float = 3.0,
        max_ratio: float = 0.4,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.horizons_s = horizons_s
        self.half_lives_s = half_lives_s
        self.warm_up_s = warm_up_s
        self.min_rate_per_min = min_rate_per_min
        self.max_ratio = max_ratio
        self.max_freeze_s = max_freeze_s
        self._tail = Calibration(len(horizons_s), prior=(1.1, 1.2))
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        k = len(self.horizons_s)
        state: dict[str, FloatArray] = {name: np.zeros((n, k)) for name in ("count", "span_s", "excess", "squares")}
        state |= {"rate_count": np.zeros((n, 2)), "rate_s": np.zeros((n, 2))}
        state |= {name: np.zeros(n) for name in ("rows", "empty_rows", "empty_pairs", "empty_run")}
        return state | {"seen_s": np.zeros(n), "frozen_s": np.zeros(n)} | self._tail.fresh(n)

    def _measure(self, x: Features) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, BoolArray]:
        requests, window_s = column(x, "requests"), column(x, "window_s")
        known = np.isfinite(requests)
        keep = np.where(known[:, None], horizon_keep(window_s, self.horizons_s), 1.0)
        count = self.state["count"] * keep + np.where(known, requests, 0.0)[:, None]
        span_s = self.state["span_s"] * keep + np.where(known, window_s, 0.0)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = np.where(self.state["rate_s"] > 0, self.state["rate_count"] / self.state["rate_s"], np.nan)
        rate = np.min(rates, axis=1, keepdims=True)
        mean = np.nan_to_num(rate) * span_s
        # Method of moments: variance = mean + mean^2 / size. A tenth of the mean is believed as spread at first.
        size = (self.state["squares"] + 1e-9) / np.maximum(self.state["excess"], 0.01 * self.state["squares"] + 1e-11)
        nominal = -log10_negative_binomial_low(count, np.maximum(mean, 1e-9), np.clip(size, 0.2, 1e6))
        return count, span_s, mean, nominal, known

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        count, span_s, mean, nominal, known = self._measure(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            expected_min = np.where(span_s > 0, mean / span_s, 0.0) * 60.0
            observed_min = np.where(span_s > 0, count / span_s, 0.0) * 60.0
        gate = (observed_min <= self.max_ratio * expected_min) & (expected_min >= self.min_rate_per_min)
        gate &= gate[:, :1] | (observed_min[:, :1] <= math.sqrt(self.max_ratio) * expected_min)
        gate &= (known & (self.state["seen_s"] >= self.warm_up_s))[:, None]
        decades = np.where(gate, self._tail.decades(self.state, nominal) - math.log10(2.0), -np.inf)
        alive = (expected_min[:, 0] >= self.min_rate_per_min) & (self.state["seen_s"] >= self.warm_up_s)
        decades[:, 0] = np.maximum(decades[:, 0], np.where(alive, self._silence(x), -np.inf))
        best = np.argmax(decades, axis=1)[:, None]
        observed = np.take_along_axis(observed_min, best, axis=1)[:, 0]
        expected = np.where(self.state["seen_s"] > 0, np.take_along_axis(expected_min, best, axis=1)[:, 0], np.nan)
        effect = np.maximum(np.nan_to_num(expected - observed), 0.0)
        # The evidence is what should have come.
        volume = np.take_along_axis(mean, best, axis=1)[:, 0]
        return Judgement(
            score_of(-np.max(decades, axis=1)), observed, expected, np.full(len(effect), np.nan), effect, volume
        )

    def _silence(self, x: Features) -> FloatArray:
        """Factors of ten by which a run of empty rows is unlikely, from how often this series had any.

        The rule of succession bounds the chance that a run begins, (empty + 1) / (rows + 2), and that it goes on,
        (pairs + 1) / (empty + 4). Bursty traffic, whose spread explains any single empty row, is judged by this.
        """
        s = self.state
        run = s["empty_run"] + 1
        begins = np.log10((s["rows"] + 2) / (s["empty_rows"] + 1))
        goes_on = np.log10((s["empty_rows"] + 4) / (s["empty_pairs"] + 1))
        empty = np.isfinite(column(x, "requests")) & (np.nan_to_num(column(x, "requests"), nan=1.0) <= 0)
        return np.where(empty, begins + (run - 1) * goes_on - math.log10(2.0), -np.inf)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; frozen slots, and rows that score high, do not move the expected rate."""
        wanted = self.judged(x).score >= SELF_FREEZE
        if frozen is not None:
            wanted |= frozen
        requests, window_s = column(x, "requests"), column(x, "window_s")
        count, span_s, mean, nominal, known = self._measure(x)
        state = self.state
        hold, relearn = obey(state, wanted, window_s, self.max_freeze_s)
        if relearn.any():
            state["rate_count"][relearn] *= RELEARN
            state["rate_s"][relearn] *= RELEARN
        learned = (known & ~hold)[:, None]
        settled = learned & (state["seen_s"] >= self.warm_up_s / 2)[:, None] & (mean > 0)
        part = np.minimum(1.0, window_s[:, None] / np.asarray(self.horizons_s))
        keep = np.where(settled, half_life_keep(window_s, [43_200.0]), 1.0)
        away = np.clip(count - mean, -2 * mean, 2 * mean)
        state["excess"] = state["excess"] * keep + np.where(settled, part * (away * away - mean), 0.0)
        state["squares"] = state["squares"] * keep + np.where(settled, part * mean * mean, 0.0)
        empty = known & (np.nan_to_num(requests, nan=1.0) <= 0)
        counted = known & ~hold & (state["seen_s"] > 0)
        state["empty_pairs"] = state["empty_pairs"] + (counted & empty & (state["empty_run"] > 0))
        state["empty_rows"] = state["empty_rows"] + (counted & empty)
        state["rows"] = state["rows"] + counted
        state["empty_run"] = np.where(empty, state["empty_run"] + 1, np.where(known, 0.0, state["empty_run"]))
        self._tail.learn(state, nominal, np.minimum(1.0, 3 * part), settled)
        state["count"], state["span_s"] = count, span_s
        keep = np.where(learned, half_life_keep(window_s, self.half_lives_s), 1.0)
        state["rate_count"] = state["rate_count"] * keep + np.where(learned, np.nan_to_num(requests)[:, None], 0.0)
        state["rate_s"] = state["rate_s"] * keep + np.where(learned, window_s[:, None], 0.0)
        state["seen_s"] = state["seen_s"] + np.where(known & (state["rate_count"][:, 0] > 0), window_s, 0.0)
