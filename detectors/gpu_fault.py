"""GPUs that break: XIDs of the hardware class and uncorrectable memory errors."""

from __future__ import annotations

import numpy as np

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import column

HARDWARE_SCORE = 0.9
"""A hardware XID in the row: the driver says that the GPU or its links are in doubt."""
MEMORY_SCORE = 0.8
"""Uncorrectable memory errors without an XID."""
APPLICATION_SCORE = 0.15
"""Only XIDs of the application class: on record, but below what any sensible policy opens an incident at."""

_COUNTS = ("hardware", "memory", "application")


class GpuFault(Detector):
    """A rule without learning: new XIDs and new memory errors, scored by class.

    DCGM reports the last XID as a level that never clears, so only its changes count (the windows find them). The
    score stands for `quiet_s` after the last event and then falls to 0, so that an incident ends by itself.

    Parameters
    ----------
    quiet_s
        Time without a new event after which the score falls.

    Notes
    -----
    Which codes there were is not a feature; `detectors.xid.describe_xids` names them for the incident, and
    `detectors.xid.XIDS` gives their classes.
    """

    kind = "gpu_fault"
    stream = "gpus"
    cadence = "window"
    features = ("samples", "xid_events", "xid_hardware_events", "ecc_events", "unhealthy_ms", "unhealthy_pico")
    unit = "faults"
    effect_unit = "faults"

    def __init__(self, quiet_s: float = 300.0) -> None:
        self.quiet_s = quiet_s
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return {name: np.zeros(n) for name in (*_COUNTS, "left_s", "seen_s")}

    def _after(self, x: Features) -> dict[str, FloatArray]:
        """Events since the score began to stand, with this row's; and how long it still stands."""
        window_s = column(x, "window_s")
        events = np.clip(np.nan_to_num(column(x, "xid_events")), 0.0, 1e12)
        hardware = np.clip(np.nan_to_num(column(x, "xid_hardware_events")), 0.0, 1e12)
        row = {
            "hardware": hardware,
            "memory": np.clip(np.nan_to_num(column(x, "ecc_events")), 0.0, 1e12),
            "application": np.maximum(events - hardware, 0.0),
        }
        new = row["hardware"] + row["memory"] + row["application"] > 0
        left_s = np.where(new, self.quiet_s, np.maximum(self.state["left_s"] - window_s, 0.0))
        stands = new | (left_s > 0)
        out = {name: np.where(stands, np.minimum(self.state[name] + row[name], 1e15), 0.0) for name in _COUNTS}
        return out | {"left_s": left_s, "seen_s": np.minimum(self.state["seen_s"] + window_s, 1e12)}

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        s = self._after(x)
        score = np.where(s["application"] > 0, APPLICATION_SCORE, 0.0)
        score = np.where(s["memory"] > 0, MEMORY_SCORE, score)
        score = np.where(s["hardware"] > 0, HARDWARE_SCORE, score)
        faults = s["hardware"] + s["memory"]
        unhealthy_ms, pico = np.nan_to_num(column(x, "unhealthy_ms")), np.nan_to_num(column(x, "unhealthy_pico"))
        hours = np.maximum(column(x, "window_s"), 1e-9) / 3_600
        priced = (pico > 0) & (unhealthy_ms > 0)
        detail = [""] * len(score)
        for i in np.flatnonzero(score > 0).tolist():
            parts = (
                _count(s["hardware"][i], "hardware XID"),
                _count(s["memory"][i], "uncorrectable memory error"),
                _count(s["application"][i], "application XID"),
            )
            detail[i] = ", ".join(part for part in parts if part)
        return Judgement(
            score=score,
            observed=faults,
            expected=np.zeros(len(score)),
            impact_usd_per_hour=np.where(priced, np.maximum(pico, 0.0) / 1e12 / hours, np.nan),
            effect=faults,
            volume=np.nan_to_num(column(x, "samples")),
            detail=detail,
        )

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Take the row's events over; `frozen` means nothing to a rule."""
        self.state = self._after(x)


def _count(number: float, what: str) -> str:
    return f"{number:.0f} {what}{'' if number == 1 else 's'}" if number > 0 else ""
