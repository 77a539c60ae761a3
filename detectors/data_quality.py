"""Telemetry that is broken: messages that cannot be used, answers without usage."""

from __future__ import annotations

import math

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import SELF_FREEZE, column
from detectors.share import Share, Shares
from detectors.tail import score_of


class DataQuality(Detector):
    """Share of rejected messages, and of successful requests without usage, against the series' own shares.

    Parameters
    ----------
    horizons_s
        Lengths of the sums, seconds.
    half_life_s
        Half-life of the learned shares.
    warm_up_s
        Time with messages before any score.
    min_share
        Least excess of the share, absolute; the share must at least double as well.
    min_events
        Bad messages within the horizon below which nothing is reported.
    max_freeze_s
        Longest time for which an open incident keeps its level from being learned.
    """

    kind = "data_quality"
    stream = "requests"
    cadence = "interval"
    features = ("requests", "errors", "rejected", "usage_missing")
    unit = "share of messages"
    effect_unit = "bad messages per minute"

    def __init__(
        self,
        horizons_s: tuple[float, ...] = (60.0, 300.0),
        half_life_s: float = 86_400.0,
        warm_up_s: float = 600.0,
        min_share: float = 0.01,
        min_events: float = 5.0,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.horizons_s = horizons_s
        self.half_life_s = half_life_s
        self.warm_up_s = warm_up_s
        self.min_share = min_share
        self.min_events = min_events
        self.max_freeze_s = max_freeze_s
        self._rejected = Share(horizons_s, half_life_s, warm_up_s, prefix="rejected_")
        self._missing = Share(horizons_s, half_life_s, warm_up_s, prefix="missing_")
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return self._rejected.fresh(n) | self._missing.fresh(n)

    def _rows(self, x: Features) -> list[tuple[Share, FloatArray, FloatArray]]:
        requests, rejected, missing = (column(x, name) for name in ("requests", "rejected", "usage_missing"))
        good = np.maximum(requests - np.nan_to_num(column(x, "errors")), 0.0)
        return [
            (self._rejected, rejected, requests + rejected),
            (self._missing, np.minimum(missing, good), good),
        ]

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        window_s = column(x, "window_s")
        parts: list[Shares] = [s.judge(self.state, hits, trials, window_s) for s, hits, trials in self._rows(x)]
        share = np.concatenate([p.share for p in parts], axis=1)
        base = np.concatenate([np.broadcast_to(p.base, p.share.shape) for p in parts], axis=1)
        hits = np.concatenate([p.hits for p in parts], axis=1)
        trials = np.concatenate([p.trials for p in parts], axis=1)
        decades = np.concatenate([p.decades for p in parts], axis=1)
        with np.errstate(invalid="ignore"):
            gate = (share - base >= np.maximum(self.min_share, base)) & (hits >= 0.8 * self.min_events)
        gate &= np.isfinite(decades)
        judged = np.where(gate, decades - math.log10(3.0), -np.inf)
        best = np.where(gate.any(axis=1), np.argmax(judged, axis=1), 0)[:, None]
        observed, expected, volume, bad = (
            np.take_along_axis(v, best, axis=1)[:, 0] for v in (share, base, trials, hits)
        )
        span_s = np.maximum(np.tile(self.horizons_s, 2)[best[:, 0]], window_s)
        effect = np.maximum(bad - expected * volume, 0.0) * 60.0 / span_s
        score = score_of(-np.max(judged, axis=1))
        detail = [""] * len(score)
        for slot in np.flatnonzero(score > 0):
            detail[slot] = (
                "Messages are refused: see dead_letters"
                if best[slot, 0] < len(self.horizons_s)
                else "Successful requests report no tokens"
            )
        return Judgement(score, observed, expected, np.full(len(score), np.nan), effect, volume, detail)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; frozen slots, and rows that score high, do not move the learned shares."""
        wanted = self.judged(x).score >= SELF_FREEZE
        if frozen is not None:
            wanted |= frozen
        for share, hits, trials in self._rows(x):
            share.learn(self.state, hits, trials, column(x, "window_s"), wanted, self.max_freeze_s)
