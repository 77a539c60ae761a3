"""Inference engines whose queue stands: requests arrive faster than they are served."""

from __future__ import annotations

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import SELF_FREEZE, column, half_life_keep, obey
from detectors.tail import score_of

_ROW_S = 10.0
"""Time in which one more row with a queue counts as one more piece of evidence."""
_SAME = 0.98
"""Share of the learned limit from which an engine runs at it."""


class EngineSaturation(Detector):
    """Queue, running limit, KV cache and preemptions, as the engine itself reports them.

    The main sign is a standing queue: more than `min_waiting` requests waiting on average over the row. In a healthy
    engine that is rare (`prior_share` of all 10 s), so every further 10 s multiply the evidence; a longer queue, a
    running limit that has been reached before, a full KV cache and preemptions add to it. GPU utilisation is not
    read: it stays low while a queue stands, because small batches already keep some kernel running and large ones
    wait for memory.

    An engine that queues by design (batch inference) is learned as such: the share of rows with a queue, and its
    usual length, become its normal after `max_freeze_s`.

    Parameters
    ----------
    min_waiting
        Mean number of waiting requests that is a queue.
    min_waiting_share
        The same as a share of the running requests; the larger of both counts, so that a roll-up of many engines
        does not fire for one request.
    kv_full
        KV-cache usage (0-1) that counts as full.
    prior_share, prior_s
        Share of time with a queue that is believed before anything is known, and how long that counts as seen.
    half_life_s
        Half-life of the learned share of time with a queue and of its usual length.
    most_rows
        Evidence of more successive rows than this is not added up.
    max_freeze_s
        Longest time for which an open incident keeps the queue from being learned as normal.

    Notes
    -----
    The signals are those that vLLM's and llm-d's documentation call saturation: `num_requests_waiting` above 0,
    `kv_cache_usage_perc` above 0.9, a rising `num_preemptions_total`.
    """

    kind = "engine_saturation"
    stream = "gpus"
    cadence = "window"
    features = (
        "samples", "running_milli", "waiting_milli", "requests_running_max", "requests_waiting_max",
        "kv_cache_samples", "kv_cache_ppm", "preemptions",
    )  # fmt: skip
    unit = "waiting requests"
    effect_unit = "waiting requests"

    def __init__(
        self,
        min_waiting: float = 1.0,
        min_waiting_share: float = 0.004,
        kv_full: float = 0.9,
        prior_share: float = 0.01,
        prior_s: float = 1_000.0,
        half_life_s: float = 86_400.0,
        most_rows: float = 6.0,
        max_freeze_s: float = 21_600.0,
    ) -> None:
        self.min_waiting = min_waiting
        self.min_waiting_share = min_waiting_share
        self.kv_full = kv_full
        self.prior_share = prior_share
        self.prior_s = prior_s
        self.half_life_s = half_life_s
        self.most_rows = most_rows
        self.max_freeze_s = max_freeze_s
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        names = ("standing_s", "queue_s", "seen_s", "waiting_sum", "limit", "limit_s", "frozen_s")
        return {name: np.zeros(n) for name in names}

    def _signs(self, x: Features) -> tuple[FloatArray, FloatArray, BoolArray, FloatArray, BoolArray, BoolArray]:
        """Waiting and running requests, whether a queue stands, KV-cache usage, preemptions, measured at all."""
        waiting = np.clip(np.nan_to_num(column(x, "waiting_milli")) / 1e3, 0.0, 1e12)
        running = np.clip(np.nan_to_num(column(x, "running_milli")) / 1e3, 0.0, 1e12)
        least = np.maximum(self.min_waiting, self.min_waiting_share * running)
        # A queue that stands has to be a tenth of that to be over.
        queue = waiting >= least * np.where(self.state["standing_s"] >= _ROW_S, 0.1, 1.0)
        samples = np.nan_to_num(column(x, "kv_cache_samples"))
        kv = np.where(samples > 0, column(x, "kv_cache_ppm") / 1e6 / np.maximum(samples, 1.0), np.nan)
        preempted = np.nan_to_num(column(x, "preemptions")) > 0
        measured = np.isfinite(column(x, "requests_waiting_max")) | (waiting > 0) | np.isfinite(kv)
        return waiting, running, queue, np.clip(kv, 0.0, 1.0), preempted, measured

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        s, window_s = self.state, column(x, "window_s")
        waiting, running, queue, kv, preempted, measured = self._signs(x)
        full = np.nan_to_num(kv) >= self.kv_full
        pressed = (queue | (full & preempted)) & measured
        share = np.clip((s["queue_s"] + self.prior_share * self.prior_s) / (s["seen_s"] + self.prior_s), 0.001, 1.0)
        rows = np.minimum((s["standing_s"] + window_s) / _ROW_S, self.most_rows)
        usual = s["waiting_sum"] / np.maximum(s["seen_s"], self.prior_s)
        # Queue lengths of a healthy engine fall off fast: a tenfold longer queue counts as a hundredfold rarer.
        depth = 2.0 * np.log10(1.0 + np.maximum(waiting - usual, 0.0) / (1.0 + usual))
        limit = s["limit"]
        at_limit = (s["limit_s"] >= 2 * _ROW_S) & (limit >= 4)
        at_limit &= np.nan_to_num(column(x, "requests_running_max")) >= _SAME * limit
        signs = at_limit.astype(np.float64) + full + preempted
        # Other signs count as much as the queue is strange: an engine that always queues also runs at its limit.
        strange = np.minimum(-np.log10(share) / 2.0, 1.0)
        decades = np.where(pressed, -rows * np.log10(share) + strange * (depth + signs), 0.0)
        detail = [""] * len(waiting)
        for i in np.flatnonzero(pressed).tolist():
            detail[i] = f"{waiting[i]:.0f} waiting, {running[i]:.0f} running"
            detail[i] += " (the most it runs)" if at_limit[i] else ""
            detail[i] += f", KV cache {kv[i]:.0%}" if np.isfinite(kv[i]) else ""
            detail[i] += ", requests preempted" if preempted[i] else ""
        return Judgement(
            score=score_of(-decades),
            observed=np.where(measured, waiting, np.nan),
            expected=usual,
            impact_usd_per_hour=np.full(len(waiting), np.nan),
            effect=np.where(pressed, waiting, 0.0),
            volume=np.nan_to_num(column(x, "samples")),
            detail=detail,
        )

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; the running limit is learned in any case, the queue not while it is judged strange."""
        s, window_s = self.state, column(x, "window_s")
        waiting, _, queue, kv, preempted, measured = self._signs(x)
        # A single row with a queue is learned: that it happens is what makes the next one less strange.
        wanted = (self.judged(x).score >= SELF_FREEZE) & (s["standing_s"] >= _ROW_S)
        if frozen is not None:
            wanted |= frozen
        hold, relearn = obey(s, wanted, window_s, self.max_freeze_s)
        pressed = queue | ((np.nan_to_num(kv) >= self.kv_full) & preempted)
        fading = s["standing_s"] * half_life_keep(window_s, [_ROW_S])[:, 0]
        standing = np.where(pressed, np.minimum(s["standing_s"] + window_s, 3_600.0), fading)
        s["standing_s"] = np.where(measured, standing, s["standing_s"])

        learns = measured & ~hold
        keep = np.where(learns, half_life_keep(window_s, [self.half_life_s])[:, 0], 1.0) * np.where(relearn, 0.1, 1.0)
        time = np.where(learns, window_s, 0.0)
        s["seen_s"] = s["seen_s"] * keep + time
        s["queue_s"] = s["queue_s"] * keep + np.where(pressed, time, 0.0)
        s["waiting_sum"] = s["waiting_sum"] * keep + waiting * time

        most = np.clip(np.nan_to_num(column(x, "requests_running_max")), 0.0, 1e12)
        limit = s["limit"] * half_life_keep(window_s, [7 * 86_400.0])[:, 0]
        higher, near = most * _SAME > limit, most >= _SAME * limit
        s["limit_s"] = np.where(higher, window_s, np.minimum(s["limit_s"] + np.where(near, window_s, 0.0), 86_400.0))
        s["limit"] = np.maximum(limit, most)
