"""GPUs that somebody holds and nobody uses, as money."""

from __future__ import annotations

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import column, horizon_keep
from detectors.tail import OPEN_SCORE

_SUMS = ("held_idle_ms", "busy_ms", "held_idle_pico", "unpriced_ms", "all_ms", "free_ms")


class GpuIdle(Detector):
    """Share of held GPU time that is idle, over half an hour and over the last minutes, whichever is smaller.

    A rule, not a learned normal: waste that is usual is waste all the same. Free GPUs (held by nobody) do not count;
    neither does time in which a GPU did not report. `min_share` scores `OPEN_SCORE`, all of the time scores 1.

    Parameters
    ----------
    horizon_s
        Length of the sums, which forget gradually; a GPU must have reported for so long before it scores.
    recent_s
        Length of the short sums: work that starts again ends the incident soon.
    min_share
        Idle share (0-1) of held GPU time that should be looked at.
    """

    kind = "gpu_idle"
    stream = "gpus"
    cadence = "interval"
    features = (
        "busy_ms", "held_idle_ms", "free_ms", "unhealthy_ms", "held_idle_pico", "unpriced_ms", "gpus",
    )  # fmt: skip
    unit = "idle GPUs"
    effect_unit = "idle GPUs"

    def __init__(self, horizon_s: float = 1_800.0, recent_s: float = 300.0, min_share: float = 0.6) -> None:
        self.horizon_s = horizon_s
        self.recent_s = recent_s
        self.min_share = min_share
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        recent = {f"recent_{name}": np.zeros(n) for name in ("held_idle_ms", "busy_ms")}
        return {name: np.zeros(n) for name in (*_SUMS, "length_s", "seen_s")} | recent

    def _after(self, x: Features) -> tuple[dict[str, FloatArray], BoolArray]:
        """The sums with this row, and whether it was measured."""
        window_s = column(x, "window_s")
        row = {name: np.clip(np.nan_to_num(column(x, name)), 0.0, 1e18) for name in self.features}
        row["all_ms"] = row["busy_ms"] + row["held_idle_ms"] + row["free_ms"] + row["unhealthy_ms"]
        measured = row["all_ms"] > 0
        keep = horizon_keep(window_s, [self.horizon_s, self.recent_s])
        out = {name: self.state[name] * keep[:, 0] + row[name] for name in _SUMS}
        out |= {
            f"recent_{name}": self.state[f"recent_{name}"] * keep[:, 1] + row[name]
            for name in ("held_idle_ms", "busy_ms")
        }
        out["length_s"] = self.state["length_s"] * keep[:, 0] + window_s
        out["seen_s"] = np.minimum(self.state["seen_s"] + window_s, 2 * self.horizon_s)
        return {name: np.where(measured, values, self.state[name]) for name, values in out.items()}, measured

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        s, measured = self._after(x)
        share = _share(s["held_idle_ms"], s["busy_ms"])
        lesser = np.minimum(share, _share(s["recent_held_idle_ms"], s["recent_busy_ms"]))
        below = OPEN_SCORE * np.clip(2 * lesser / self.min_share - 1, 0.0, 1.0)
        above = OPEN_SCORE + (1 - OPEN_SCORE) * (lesser - self.min_share) / max(1 - self.min_share, 1e-9)
        enough = measured & (s["seen_s"] >= self.horizon_s)
        score = np.where(enough, np.clip(np.where(lesser >= self.min_share, above, below), 0.0, 1.0), 0.0)
        length_s = np.maximum(s["length_s"], 1e-9)
        idle, held, free = (
            milliseconds / 1e3 / length_s
            for milliseconds in (s["held_idle_ms"], s["held_idle_ms"] + s["busy_ms"], s["free_ms"])
        )
        usd_per_hour = s["held_idle_pico"] / 1e12 * 3_600 / length_s
        impact = np.where((s["unpriced_ms"] < s["all_ms"]) & (s["all_ms"] > 0), usd_per_hour, np.nan)
        detail = [""] * len(score)
        for i in np.flatnonzero(score > 0).tolist():
            cost = f", {impact[i]:.2f} USD per hour" if np.isfinite(impact[i]) else ", price not known"
            spare = f", {free[i]:.1f} more are free" if free[i] >= 0.05 else ""
            minutes = self.horizon_s / 60
            detail[i] = f"{idle[i]:.1f} of {held[i]:.1f} held GPUs idle over {minutes:.0f} min{cost}{spare}"
        return Judgement(
            score=score,
            observed=idle,
            expected=self.min_share * held,
            impact_usd_per_hour=impact,
            effect=np.where(score > 0, idle, 0.0),
            volume=np.nan_to_num(column(x, "gpus")),
            detail=detail,
        )

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Take the row into the sums; `frozen` means nothing to a rule."""
        self.state, _ = self._after(x)


def _share(idle: FloatArray, busy: FloatArray) -> FloatArray:
    return np.asarray(idle / np.maximum(idle + busy, 1e-9))
