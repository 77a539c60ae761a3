"""Vendor quotas that are used up, or soon will be."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import SELF_FREEZE, column, horizon_keep
from detectors.share import Share
from detectors.tail import OPEN_SCORE, score_of
from detectors.trend import Trend


class QuotaSaturation(Detector):
    """Refusals for quota, and headroom as the vendor reports it.

    Three signs, the strongest counts: (1) the share of `vendor_quota` refusals, a binomial tail against 0.2 % or the
    series' own share; (2) reported use of the quota: 95 % scores `OPEN_SCORE`, 100 % scores 1; (3) a rising line
    through the reported use that reaches 100 % soon, even at its lower confidence limit.

    Parameters
    ----------
    horizons_s
        Lengths of the sums of refusals, seconds.
    half_life_s
        Half-life of the learned share of refusals.
    warm_up_s
        Time with requests before refusals or forecasts score.
    base_share
        Share of refusals that is always normal.
    min_share, min_refusals
        Gates of the first sign.
    full
        Reported use that counts as full.
    forecast_s
        A quota that will be used up within this time is reported.
    forecast_from
        Use below which no forecast is made.
    max_freeze_s
        Longest time for which an open incident keeps its level from being learned.
    """

    kind = "quota_saturation"
    stream = "requests"
    cadence = "window"
    features = ("requests", "errors_vendor_quota", "quota_reports", "quota_used_ppm")
    unit = "share of quota"
    effect_unit = "refused requests per minute"

    def __init__(
        self,
        horizons_s: tuple[float, ...] = (10.0, 60.0),
        half_life_s: float = 86_400.0,
        warm_up_s: float = 300.0,
        base_share: float = 0.002,
        min_share: float = 0.02,
        min_refusals: float = 3.0,
        full: float = 0.95,
        forecast_s: float = 900.0,
        forecast_from: float = 0.6,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.horizons_s = horizons_s
        self.half_life_s = half_life_s
        self.warm_up_s = warm_up_s
        self.base_share = base_share
        self.min_share = min_share
        self.min_refusals = min_refusals
        self.full = full
        self.forecast_s = forecast_s
        self.forecast_from = forecast_from
        self.max_freeze_s = max_freeze_s
        self._share = Share(horizons_s, half_life_s, warm_up_s, prior_hits=0.0, least_base=base_share)
        self._trend = Trend(half_life_s=300.0)
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        sums = {"used": np.zeros((n, 1)), "reports": np.zeros((n, 1))}
        return self._share.fresh(n) | self._trend.fresh(n) | sums

    def _headroom(self, x: Features) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Sums over a minute with this row, the used share over it, and the row's own."""
        keep = horizon_keep(column(x, "window_s"), [60.0])
        used = np.nan_to_num(column(x, "quota_used_ppm")) / 1e6
        reports = np.nan_to_num(column(x, "quota_reports"))
        sum_used, sum_reports = (
            self.state["used"] * keep + used[:, None],
            self.state["reports"] * keep + reports[:, None],
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            # A minute in which almost nothing was reported says nothing.
            level = np.where(sum_reports[:, 0] >= 0.5, sum_used[:, 0] / sum_reports[:, 0], np.nan)
            row = np.where(reports > 0, used / reports, np.nan)
        return sum_used, sum_reports, np.clip(level, 0.0, 1.0), np.clip(row, 0.0, 1.0)

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        requests, refused = column(x, "requests"), column(x, "errors_vendor_quota")
        window_s = column(x, "window_s")
        shares = self._share.judge(self.state, np.minimum(refused, requests), requests, window_s)
        with np.errstate(invalid="ignore"):
            gate = (shares.share >= np.maximum(self.min_share, 2 * shares.base)) & np.isfinite(shares.decades)
        gate &= shares.hits >= 0.8 * self.min_refusals
        decades = np.where(gate, shares.decades - math.log10(1.5), -np.inf)
        refusals = score_of(-np.max(decades, axis=1))

        _, _, level, row = self._headroom(x)
        start = 2 * self.full - 1.0  # scores rise linearly from here, so that `full` is OPEN_SCORE
        high = np.nan_to_num(np.minimum(level, row))
        full = np.where(high >= self.full, OPEN_SCORE + (1 - OPEN_SCORE) * (high - self.full) / (1 - self.full), 0.0)
        near = OPEN_SCORE * np.clip((high - start) / (self.full - start), 0.0, 1.0)
        forecast, left_s = self._forecast(x, row)
        headroom = np.where(high >= self.full, full, np.maximum(near, forecast))

        score = np.clip(np.maximum(refusals, headroom), 0.0, 1.0)
        trials = shares.trials[:, -1]
        rejected = np.nan_to_num(shares.share[:, -1])
        by_headroom = headroom >= refusals
        observed = np.where(by_headroom, level, rejected)
        expected = np.where(by_headroom, self.full, shares.base[:, 0])
        effect = np.maximum(rejected - shares.base[:, 0], 0.0) * trials * 60.0 / self.horizons_s[-1]
        detail = [""] * len(score)
        for slot in np.flatnonzero(score > 0):
            if not by_headroom[slot]:
                detail[slot] = f"{rejected[slot]:.0%} of requests refused"
            elif high[slot] < self.full and forecast[slot] > near[slot]:
                detail[slot] = f"{high[slot]:.0%} of quota used, full in {left_s[slot] / 60:.0f} min"
            else:
                detail[slot] = f"{high[slot]:.0%} of quota used"
        return Judgement(score, observed, expected, np.full(len(score), np.nan), effect, trials, detail)

    def _forecast(self, x: Features, row: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Score of "full soon", and the expected time until then in seconds."""
        ahead = self._trend.after(self.state, row, column(x, "window_s"))
        level, slope, error, decades = self._trend.line(ahead)
        with np.errstate(divide="ignore", invalid="ignore"):
            left_s = np.where(slope > 0, np.maximum(1.0 - level, 0.0) / slope, np.inf)
            sure = (slope - 2 * error > 0) & (left_s <= self.forecast_s) & (level >= self.forecast_from)
        warm = self.state["seen_s"] >= self.warm_up_s
        # Rows are correlated, so the line's own certainty is discounted by half.
        score = np.where(sure & warm & np.isfinite(row), score_of(-decades / 2), 0.0)
        return score, np.where(np.isfinite(left_s), left_s, np.inf)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; frozen slots, and rows that score high, do not move the learned share of refusals."""
        wanted = self.judged(x).score >= SELF_FREEZE
        if frozen is not None:
            wanted |= frozen
        requests, refused = column(x, "requests"), column(x, "errors_vendor_quota")
        window_s = column(x, "window_s")
        sum_used, sum_reports, _, row = self._headroom(x)
        self._trend.learn(self.state, row, window_s)
        self.state["used"], self.state["reports"] = sum_used, sum_reports
        self._share.learn(self.state, np.minimum(refused, requests), requests, window_s, wanted, self.max_freeze_s)
