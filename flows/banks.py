"""Running a shard's detectors over one row: score, learn, report. Shared by the request and the GPU flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from detectors.base import Detector, FloatArray
from flows.slots import Slots
from schemas.findings import Findings
from schemas.series import Series

FREEZE_SCORE = 0.5
"""A slot whose score reaches this (one in 100,000 rows) is not learned as normal for that row."""

WORTH_HISTORY = 0.3
"""Series at or above this score are reported with their history."""

MAX_EMPTY = 360
"""Rows without any event that are judged in succession; a longer silence of everything is a gap of collection and
teaches nothing."""


@dataclass(slots=True)
class Plan:
    """What a shard watches with.

    Parameters
    ----------
    detectors
        Factories by name, in fixed order; called once per shard.
    on_new_series
        Called with every detector's name, the detector, a slot and its new series, so that objectives and budgets
        reach their series.
    """

    detectors: Mapping[str, Callable[[], Detector]]
    on_new_series: Callable[[str, Detector, int, Series], None]

    def greeter(self, detectors: Mapping[str, Detector]) -> Callable[[int, Series], None]:
        """What to call with every new slot and series."""

        def greet(slot: int, series: Series) -> None:
            for name, detector in detectors.items():
                self.on_new_series(name, detector, slot, series)

        return greet


def run(detectors: Mapping[str, Detector], cadence: str, x: Mapping[str, FloatArray], slots: Slots) -> list[Findings]:
    """Score one row with every detector of that cadence, then let it learn; findings hold the live slots only."""
    live = slots.live
    out = []
    for name, detector in detectors.items():
        if detector.cadence != cadence:
            continue
        j = detector.judge(x)
        score = np.where(live, j.score, 0.0)
        detector.learn_many(x, score >= FREEZE_SCORE)
        out.append(
            Findings(
                kind=detector.kind,
                detector=name,
                unit=detector.unit,
                effect_unit=detector.effect_unit,
                cadence=cadence,
                score=score[live],
                observed=j.observed[live],
                expected=j.expected[live],
                impact_usd_per_hour=j.impact_usd_per_hour[live],
                effect=j.effect[live],
                volume=j.volume[live],
                detail=None if j.detail is None else [j.detail[i] for i in np.flatnonzero(live).tolist()],
            )
        )
    return out


def strange(findings: list[Findings], live: npt.NDArray[np.bool_], threshold: float) -> npt.NDArray[np.bool_]:
    """Slots that any detector scores at or above a threshold, shape (n slots,)."""
    out = np.zeros(len(live), np.bool_)
    for f in findings:
        out[live] |= f.score >= threshold
    return out


SavedBanks = dict[str, tuple[str, dict[str, npt.NDArray[Any]]]]
"""By detector name: the class that wrote it, and its arrays."""


def saved_banks(detectors: Mapping[str, Detector]) -> SavedBanks:
    """State of all banks, with the class that wrote it."""
    return {name: (type(d).__name__, d.state) for name, d in detectors.items()}


def restore_banks(detectors: Mapping[str, Detector], saved: SavedBanks) -> None:
    """Take over saved banks; one that another version wrote differently starts cold, said aloud."""
    for name, detector in detectors.items():
        wrote, state = saved.get(name, ("", {}))
        same = wrote == type(detector).__name__ and state.keys() == detector.state.keys()
        if same and all(state[k].shape == v.shape and state[k].dtype == v.dtype for k, v in detector.state.items()):
            detector.state = state
        elif name in saved:
            structlog.get_logger().warning("cold start", component=name, why="its saved state has another shape")
