"""Prompts that keep growing: input tokens per request against a slow baseline."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import SELF_FREEZE, column
from detectors.shift import Horizon, Shift
from detectors.tail import score_of
from schemas.money import PICO_PER_USD


class ContextGrowth(Detector):
    """Input tokens per request at long horizons against a baseline of days: catches ramps, not single long prompts.

    Parameters
    ----------
    horizons_s
        Lengths over which tokens and requests are summed, seconds.
    half_life_s
        Half-life of the baseline.
    warm_up_s
        Time with requests before any score.
    min_ratio
        Growth below which nothing is reported.
    max_freeze_s
        Longest time for which an open incident keeps its level from being learned.
    """

    kind = "context_growth"
    stream = "requests"
    cadence = "interval"
    features = ("input_tokens", "requests", "errors", "usage_missing", "cost_input_pico", "cost_cache_read_pico",
                "cost_cache_write_pico")  # fmt: skip
    unit = "input tokens per request"
    effect_unit = "input tokens per request"

    def __init__(
        self,
        horizons_s: tuple[float, ...] = (1_800.0, 5_400.0),
        half_life_s: float = 172_800.0,
        warm_up_s: float = 7_200.0,
        min_ratio: float = 1.4,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.horizons_s = horizons_s
        self.half_life_s = half_life_s
        self.warm_up_s = warm_up_s
        self.min_ratio = min_ratio
        self.max_freeze_s = max_freeze_s
        columns = tuple(Horizon(length, half_life_s, warm_up_s) for length in horizons_s)
        self._shift = Shift(columns, spread_half_life_s=half_life_s, prior_spread=0.3, least_spread=0.04, ramps=True)
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return self._shift.fresh(n)

    def _row(self, x: Features) -> tuple[FloatArray, FloatArray, FloatArray]:
        tokens, requests = column(x, "input_tokens"), column(x, "requests")
        # Failed requests and those without usage carry no tokens and would look like short prompts.
        counted = requests - np.nan_to_num(column(x, "errors")) - np.nan_to_num(column(x, "usage_missing"))
        known = np.isfinite(tokens) & (counted > 0)
        return (
            np.where(known, tokens, np.nan)[:, None],
            np.where(known, counted, np.nan)[:, None],
            column(x, "window_s"),
        )

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        num, den, window_s = self._row(x)
        shifts = self._shift.judge(self.state, num, den, window_s)
        gate = (shifts.x >= math.log(self.min_ratio)) & np.isfinite(shifts.decades)
        # Both horizons are needed to tell growth from a burst; the shorter one closes the incident.
        gate &= gate[:, :1]
        decades = np.where(gate, shifts.decades - math.log10(1.5), -np.inf)
        best = np.where(gate.any(axis=1), np.argmax(decades, axis=1), 0)[:, None]
        observed = np.take_along_axis(shifts.level, best, axis=1)[:, 0]
        expected = np.take_along_axis(shifts.baseline, best, axis=1)[:, 0]
        grown = np.maximum(np.nan_to_num(observed - expected), 0.0)
        paid = sum(column(x, f"cost_{part}_pico") for part in ("input", "cache_read", "cache_write"))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(observed > 0, grown / observed, 0.0)
            impact = share * paid * 3600.0 / window_s / PICO_PER_USD
        volume = np.take_along_axis(shifts.weight, best, axis=1)[:, 0]
        return Judgement(score_of(-np.max(decades, axis=1)), observed, expected, impact, grown, volume)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; frozen slots, and rows that score high, do not move the baseline."""
        num, den, window_s = self._row(x)
        wanted = self.judged(x).score >= SELF_FREEZE
        if frozen is not None:
            wanted |= frozen
        self._shift.learn(self.state, num, den, window_s, wanted, self.max_freeze_s)
