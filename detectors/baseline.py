"""The usual level of every series, by which an incident is explained (who contributes, which factor moved)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.base import BoolArray, FloatArray
from detectors.decay import half_life_keep, obey
from schemas.findings import BASELINE


class Baseline:
    """Exponentially decayed level of the columns `schemas.findings.BASELINE`, a bank over slots.

    Parameters
    ----------
    half_life_s
        Age at which a row counts half.
    max_freeze_s
        Longest time for which a frozen slot keeps its level.
    """

    state: dict[str, npt.NDArray[np.float64]]

    def __init__(self, half_life_s: float = 14_400.0, max_freeze_s: float = 21_600.0) -> None:
        self.half_life_s = half_life_s
        self.max_freeze_s = max_freeze_s
        self.state = self._fresh(0)

    def _fresh(self, n: int) -> dict[str, npt.NDArray[np.float64]]:
        return {"total": np.zeros((n, len(BASELINE))), "seconds": np.zeros((n, 1)), "frozen_s": np.zeros(n)}

    def __len__(self) -> int:
        """Number of slots."""
        return len(self.state["seconds"])

    def resize(self, n: int) -> None:
        """Hold n slots: new ones know nothing; surplus ones are dropped."""
        fresh, keep = self._fresh(n), min(n, len(self))
        for name, values in fresh.items():
            values[:keep] = self.state[name][:keep]
        self.state = fresh

    def forget(self, slots: npt.NDArray[np.integer]) -> None:
        """Reset slots, whose series were evicted."""
        for values in self.state.values():
            values[slots] = 0.0

    def take(self, slots: npt.NDArray[np.integer]) -> None:
        """Hold only these slots, in this order."""
        self.state = {name: values[slots] for name, values in self.state.items()}

    def usual(self, window_s: FloatArray | float) -> FloatArray:
        """Usual amounts in a row of the given length, shape (n, len(BASELINE)); NaN where nothing is known."""
        seconds = self.state["seconds"]
        length = np.broadcast_to(np.asarray(window_s, dtype=np.float64), (len(self),))[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(seconds > 0, self.state["total"] / seconds, np.nan) * length

    def learn(self, current: npt.ArrayLike, window_s: FloatArray | float, frozen: BoolArray | None = None) -> None:
        """Learn one row.

        Parameters
        ----------
        current
            `BASELINE` columns of the row, shape (n, len(BASELINE)).
        window_s
            Its length, one for all or shape (n,).
        frozen
            Slots with an open incident: their usual level is what explains it.
        """
        length = np.array(np.broadcast_to(np.asarray(window_s, dtype=np.float64), (len(self),)))
        wanted = np.zeros(len(self), dtype=np.bool_) if frozen is None else frozen
        hold, relearn = obey(self.state, wanted, length, self.max_freeze_s)
        for name in ("total", "seconds"):
            self.state[name][relearn] *= 0.02
        learn = ~hold[:, None]
        keep = np.where(learn, half_life_keep(length, [self.half_life_s]), 1.0)
        values = np.asarray(current, dtype=np.float64)
        self.state["total"] = self.state["total"] * keep + np.where(learn, values, 0.0)
        self.state["seconds"] = self.state["seconds"] * keep + np.where(learn, length[:, None], 0.0)
