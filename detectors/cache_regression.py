"""Prompt caches that stop hitting."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import SELF_FREEZE, column, half_life_keep
from detectors.share import Share
from detectors.tail import score_of
from schemas.money import PICO_PER_USD

PRICE_HALF_LIFE_S = 86_400.0
"""Of the learned prices per token."""

COLD_S = 300.0
"""Common life of a provider's cached prefix (five minutes, refreshed on use): after so long without traffic the
next requests miss by design."""


class CacheRegression(Detector):
    """Cached share of input tokens, as ratio of sums, against the series' learned rate; unusually low scores.

    The tail counts requests, not tokens: the tokens of one request hit or miss together. Zero reported cache tokens
    of a series that never had any is no regression: a learned rate is needed. While traffic starts again after a
    pause the cache is cold and nothing is judged.

    Parameters
    ----------
    horizons_s
        Lengths of the sums, seconds.
    half_life_s
        Half-life of the learned rate.
    warm_up_s
        Time with requests before any score.
    min_rate
        Learned rate below which nothing is reported.
    max_ratio
        The rate must fall to this part of the learned one.
    min_recent
        Requests within the last five minutes, before this row, that keep a cache warm.
    max_freeze_s
        Longest time for which an open incident keeps its level from being learned.
    """

    kind = "cache_regression"
    stream = "requests"
    cadence = "interval"
    features = ("requests", "errors", "usage_missing", "input_tokens", "cache_read_tokens", "cache_write_tokens",
                "cost_input_pico", "cost_cache_read_pico", "missed_cache_pico")  # fmt: skip
    unit = "share of input tokens"
    effect_unit = "uncached tokens per minute"

    def __init__(
        self,
        horizons_s: tuple[float, ...] = (60.0, 300.0, 900.0),
        half_life_s: float = 86_400.0,
        warm_up_s: float = 1_800.0,
        min_rate: float = 0.05,
        max_ratio: float = 0.6,
        min_recent: float = 3.0,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.horizons_s = horizons_s
        self.half_life_s = half_life_s
        self.warm_up_s = warm_up_s
        self.min_rate = min_rate
        self.max_ratio = max_ratio
        self.min_recent = min_recent
        self.max_freeze_s = max_freeze_s
        self._share = Share(horizons_s, half_life_s, warm_up_s, upper=False)
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        prices = {f"price_{part}": np.zeros((n, 1)) for part in ("input", "input_tokens", "read", "read_tokens")}
        return self._share.fresh(n) | prices | {"recent": np.zeros(n), "age_s": np.zeros(n)}

    def _row(self, x: Features) -> tuple[FloatArray, FloatArray, FloatArray]:
        requests, tokens, read = (column(x, name) for name in ("requests", "input_tokens", "cache_read_tokens"))
        counted = requests - np.nan_to_num(column(x, "errors")) - np.nan_to_num(column(x, "usage_missing"))
        known = (tokens > 0) & (counted > 0) & np.isfinite(read)
        # After a pause the cache is cold by design; such rows are neither judged nor learned.
        known &= (self.state["recent"] >= self.min_recent) | (self.state["age_s"] < COLD_S)
        return np.where(known, read, np.nan), np.where(known, tokens, np.nan), np.where(known, counted, np.nan)

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        read, tokens, count = self._row(x)
        window_s = column(x, "window_s")
        shares = self._share.judge(self.state, read, tokens, window_s, count)
        with np.errstate(invalid="ignore", divide="ignore"):
            low = shares.share <= self.max_ratio * shares.base
            row_low = (read / tokens)[:, None] <= math.sqrt(self.max_ratio) * shares.base
        gate = low & row_low & (shares.base >= self.min_rate) & np.isfinite(shares.decades)
        decades = np.where(gate, shares.decades - math.log10(2.0), -np.inf)
        best = np.where(gate.any(axis=1), np.argmax(decades, axis=1), min(1, gate.shape[1] - 1))[:, None]
        observed = np.take_along_axis(shares.share, best, axis=1)[:, 0]
        volume_tokens = np.take_along_axis(shares.trials, best, axis=1)[:, 0]
        expected = shares.base[:, 0]
        span_s = np.maximum(np.asarray(self.horizons_s)[best[:, 0]], window_s)
        missed = np.maximum(np.nan_to_num(expected - observed), 0.0) * volume_tokens / span_s
        impact = self._impact(x, missed, window_s)
        requests = np.nan_to_num(column(x, "requests"))
        return Judgement(score_of(-np.max(decades, axis=1)), observed, expected, impact, missed * 60.0, requests)

    def _impact(self, x: Features, missed_per_s: FloatArray, window_s: FloatArray) -> FloatArray:
        """Missed savings, USD per hour.

        The learned difference between the price of a fresh and of a cached token, otherwise what pricing reported as
        missed in this row.
        """
        s = self.state
        known = (s["price_input_tokens"] > 0) & (s["price_read_tokens"] > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            saving = s["price_input"] / s["price_input_tokens"] - s["price_read"] / s["price_read_tokens"]
        derived = missed_per_s * np.maximum(np.where(known, saving, 0.0), 0.0)[:, 0]
        reported = np.nan_to_num(column(x, "missed_cache_pico")) / window_s
        return np.asarray(np.where(known[:, 0], derived, reported) * 3600.0 / PICO_PER_USD)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; frozen slots, and rows that score high, do not move the learned rate."""
        read, tokens, count = self._row(x)
        window_s = column(x, "window_s")
        wanted = self.judged(x).score >= SELF_FREEZE
        if frozen is not None:
            wanted |= frozen
        self._share.learn(self.state, read, tokens, window_s, wanted, self.max_freeze_s, count)
        requests = np.nan_to_num(column(x, "requests"))
        self.state["recent"] = self.state["recent"] * np.maximum(0.0, 1.0 - window_s / COLD_S) + requests
        self.state["age_s"] = self.state["age_s"] + window_s
        fresh = (
            column(x, "input_tokens") - column(x, "cache_read_tokens") - np.nan_to_num(column(x, "cache_write_tokens"))
        )
        keep = half_life_keep(window_s, [PRICE_HALF_LIFE_S])
        pairs = (("input", "cost_input_pico", fresh), ("read", "cost_cache_read_pico", column(x, "cache_read_tokens")))
        for name, cost_name, amount in pairs:
            cost = column(x, cost_name)
            ok = (cost > 0) & (amount > 0)
            for key, value in ((f"price_{name}", cost), (f"price_{name}_tokens", amount)):
                self.state[key] = self.state[key] * np.where(ok[:, None], keep, 1.0) + np.where(ok, value, 0.0)[:, None]
