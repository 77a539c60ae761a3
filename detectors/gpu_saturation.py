"""GPUs that are full, or soon will be: utilisation and memory."""

from __future__ import annotations

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import SELF_FREEZE, column, half_life_keep, obey
from detectors.tail import OPEN_SCORE, score_of
from detectors.trend import Trend

_PRIOR_SHARE, _PRIOR_S = 0.02, 3_600.0
"""Share of its time that a GPU is believed to spend at the top before anything is known, and its weight."""
_WEAK_ALONE = 0.4
"""Most that a duty cycle scores where no engine says that it serves requests: below what opens an incident."""


class GpuSaturation(Detector):
    """Utilisation that stays at the top, and utilisation or memory that rises towards it.

    Two signs, the stronger counts. (1) Utilisation of at least `full` for `sustain_s` scores `OPEN_SCORE`; the more of
    its time a series spends there anyway (training), the less it scores. (2) A line through the last half hour that
    rises for sure (slope above twice its standard error) and reaches `target` within `forecast_s`.

    Memory is judged by its rise only: engines allocate most of it at their start, so a high level says nothing.

    Where utilisation is only a duty cycle (`gpu_util`: some kernel ran), the bar is higher: `weak_full` for
    `weak_sustain_s`, half the forecast; and without an engine that serves requests it opens nothing at all, because
    any training job keeps it at 100 %. That part of `util_ms` comes as the feature `gpu_util_ms`
    (`flows.windows.gpus.gpu_features`); without it utilisation is taken as measured well.

    Parameters
    ----------
    full, sustain_s
        Utilisation (0-1) that is full, and how long it has to stay there.
    weak_full, weak_sustain_s
        The same for a duty cycle.
    target
        Level that forecasts are made for.
    forecast_s
        A level that will be reached within this time is reported.
    forecast_from
        Level below which no forecast is made.
    trend_half_life_s
        Half-life of the line's memory.
    warm_up_s
        Time that a series must have reported before a forecast is made.
    half_life_s
        Half-life of the learned usual level and of the share of time spent at the top.
    max_freeze_s
        Longest time for which an open incident keeps its level from being learned.
    """

    kind = "gpu_saturation"
    stream = "gpus"
    cadence = "interval"
    features = (
        "samples", "util_ppm_ms", "util_ms", "memory_used_bytes", "memory_total_bytes", "requests_running_max",
    )  # fmt: skip
    unit = "share of capacity"
    effect_unit = "share of capacity"

    def __init__(
        self,
        full: float = 0.95,
        sustain_s: float = 300.0,
        weak_full: float = 0.99,
        weak_sustain_s: float = 900.0,
        target: float = 0.97,
        forecast_s: float = 1_500.0,
        forecast_from: float = 0.7,
        trend_half_life_s: float = 600.0,
        warm_up_s: float = 600.0,
        half_life_s: float = 86_400.0,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.full = full
        self.sustain_s = sustain_s
        self.weak_full = weak_full
        self.weak_sustain_s = weak_sustain_s
        self.target = target
        self.forecast_s = forecast_s
        self.forecast_from = forecast_from
        self.trend_half_life_s = trend_half_life_s
        self.warm_up_s = warm_up_s
        self.half_life_s = half_life_s
        self.max_freeze_s = max_freeze_s
        self._util = Trend(trend_half_life_s, prefix="util_")
        self._memory = Trend(trend_half_life_s, prefix="memory_")
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        names = ("high_s", "top_s", "known_s", "level_sum", "level_s", "age_s", "frozen_s")
        usual = {"usual_share": np.full(n, _PRIOR_SHARE)}
        return {name: np.zeros(n) for name in names} | usual | self._util.fresh(n) | self._memory.fresh(n)

    def _levels(self, x: Features) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Utilisation and used memory as shares (NaN where not measured), and whether the former is a duty cycle."""
        util_ms, total = column(x, "util_ms"), column(x, "memory_total_bytes")
        with np.errstate(divide="ignore", invalid="ignore"):
            util = np.where(util_ms > 0, column(x, "util_ppm_ms") / 1e6 / util_ms, np.nan)
            memory = np.where(total > 0, column(x, "memory_used_bytes") / total, np.nan)
            weak_ms = column(x, "gpu_util_ms") if "gpu_util_ms" in x else np.zeros(len(util_ms))
            weak = weak_ms > 0.5 * util_ms
        return np.clip(util, 0.0, 1.0), np.clip(memory, 0.0, 1.0), weak

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        s, window_s = self.state, column(x, "window_s")
        util, memory, weak = self._levels(x)
        level = self._level(util, weak, window_s)
        serves = np.isfinite(column(x, "requests_running_max"))
        by_util, util_band = self._forecast(self._util, util, window_s, weak)
        most = np.where(weak & ~serves, _WEAK_ALONE, 1.0)
        level, by_util = np.minimum(level, most), np.minimum(by_util, most)
        by_memory, memory_band = self._forecast(self._memory, memory, window_s, np.zeros(len(util), np.bool_))
        score = np.maximum(np.maximum(level, by_util), by_memory)
        of_memory = by_memory > np.maximum(level, by_util)
        usual = np.where(s["level_s"] > 0, s["level_sum"] / np.maximum(s["level_s"], 1e-9), np.nan)
        observed = np.where(of_memory, memory, util)
        detail = [""] * len(score)
        for i in np.flatnonzero(score > 0).tolist():
            what = "memory" if of_memory[i] else "duty cycle" if weak[i] else "utilisation"
            detail[i] = f"{what} {observed[i]:.0%}"
            if of_memory[i] or by_util[i] > level[i]:
                soon, early, late = ((memory_band if of_memory[i] else util_band)[:, i] / 60).tolist()
                until = f"{late:.0f}" if late < 1_440 else "more than a day"
                detail[i] += f", {self.target:.0%} in {soon:.0f} min ({early:.0f} to {until})"
            else:
                detail[i] += f" for {(s['high_s'][i] + window_s[i]) / 60:.0f} min"
        return Judgement(
            score=score,
            observed=observed,
            expected=np.where(of_memory, np.nan, usual),
            impact_usd_per_hour=np.full(len(score), np.nan),
            effect=np.where(score > 0, np.nan_to_num(observed), 0.0),
            volume=np.nan_to_num(column(x, "samples")),
            detail=detail,
        )

    def _top(self, util: FloatArray, weak: BoolArray) -> BoolArray:
        return np.asarray(np.nan_to_num(util) >= np.where(weak, self.weak_full, self.full))

    def _level(self, util: FloatArray, weak: BoolArray, window_s: FloatArray) -> FloatArray:
        """Score of a level that stays at the top."""
        s = self.state
        stays = (s["high_s"] + window_s) / np.where(weak, self.weak_sustain_s, self.sustain_s)
        # Up to OPEN_SCORE when it has stayed long enough, slowly on to 1 at five times that.
        grown = OPEN_SCORE * np.minimum(stays, 1.0) + (1 - OPEN_SCORE) * np.clip((stays - 1) / 4, 0.0, 1.0)
        # Full weight where less than a thirtieth of the time is spent at the top, none where all of it is.
        unusual = np.clip(-np.log10(s["usual_share"]) / 1.5, 0.0, 1.0)
        return np.where(self._top(util, weak), grown * unusual, 0.0)

    def _forecast(
        self, trend: Trend, now: FloatArray, window_s: FloatArray, weak: BoolArray
    ) -> tuple[FloatArray, FloatArray]:
        """Score of "full soon"; and the time until then in seconds with its band, shape (3, n)."""
        level, slope, error, decades = trend.line(trend.after(self.state, now, window_s))
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.maximum(self.target - level, 0.0)
            soon, early = room / slope, room / (slope + 2 * error)
            late = np.where(slope - 2 * error > 0, room / (slope - 2 * error), np.inf)
            within = np.where(weak, 0.5, 1.0) * self.forecast_s
            sure = (slope - 2 * error > 0) & (soon <= within) & (level >= self.forecast_from) & np.isfinite(now)
        # Rows are correlated, so the line's own certainty is discounted by half; a rise of less than a twentieth
        # over the line's memory is no rise, however straight.
        sure &= np.nan_to_num(slope) * 3 * self.trend_half_life_s >= 0.05
        sure &= self.state["age_s"] >= self.warm_up_s
        score = np.where(sure, score_of(-decades / 2), 0.0)
        return score, np.nan_to_num(np.stack([soon, early, late]), nan=0.0, posinf=1e12)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; the lines always follow, the usual level not while it is judged strange."""
        s, window_s = self.state, column(x, "window_s")
        util, memory, weak = self._levels(x)
        wanted = self.judged(x).score >= SELF_FREEZE
        if frozen is not None:
            wanted |= frozen
        hold, relearn = obey(s, wanted, window_s, self.max_freeze_s)
        top, measured = self._top(util, weak), np.isfinite(util)
        forget = half_life_keep(window_s, [self.half_life_s])[:, 0]
        learns = measured & ~hold
        keep = np.where(learns, forget, 1.0) * np.where(relearn, 0.1, 1.0)
        time = np.where(learns, window_s, 0.0)
        s["level_s"] = s["level_s"] * keep + time
        s["level_sum"] = s["level_sum"] * keep + np.nan_to_num(util) * time

        keep, time = np.where(measured, forget, 1.0), np.where(measured, window_s, 0.0)
        s["known_s"] = s["known_s"] * keep + time
        s["top_s"] = s["top_s"] * keep + np.where(top, time, 0.0)
        s["high_s"] = np.where(top, np.minimum(s["high_s"] + window_s, 1e6), np.where(measured, 0.0, s["high_s"]))
        # A stay at the top is judged by what was usual when it began, until it has lasted too long for that.
        share = (s["top_s"] + _PRIOR_SHARE * _PRIOR_S) / (s["known_s"] + _PRIOR_S)
        began = (s["high_s"] > 0) & (s["high_s"] <= self.max_freeze_s)
        s["usual_share"] = np.where(began, s["usual_share"], share)
        seen = measured | np.isfinite(memory)
        s["age_s"] = np.minimum(s["age_s"] + np.where(seen, window_s, 0.0), 1e9)
        self._util.learn(s, util, window_s)
        self._memory.learn(s, memory, window_s)
