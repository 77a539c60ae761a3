"""A straight line through the recent past, exponentially weighted: where a level will be, and how sure that is.

References
----------
M. West, J. Harrison (1997), Bayesian forecasting and dynamic models, section 7.3 (discount weighted regression).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import FloatArray
from detectors.decay import half_life_keep
from detectors.tail import log10_student

State = dict[str, npt.NDArray[Any]]

NAMES = ("w", "t", "tt", "y", "ty", "yy", "ww")


class Trend:
    """Weighted regression on time, per slot; ages are measured back from the newest row.

    Parameters
    ----------
    half_life_s
        Age at which a row counts half.
    prefix
        Of the names of its state arrays.
    """

    def __init__(self, half_life_s: float, prefix: str = "trend_") -> None:
        self.half_life_s = half_life_s
        self.prefix = prefix

    def fresh(self, n: int) -> State:
        """State of n slots that nothing is known about."""
        return {f"{self.prefix}{name}": np.zeros(n) for name in NAMES}

    def learn(self, state: State, y: FloatArray, window_s: FloatArray) -> None:
        """Learn one row; NaN only lets time pass."""
        state.update(self.after(state, y, window_s))

    def after(self, state: State, y: FloatArray, window_s: FloatArray) -> State:
        """The state after one more row; changes nothing."""
        p = self.prefix
        keep = half_life_keep(window_s, [self.half_life_s])[:, 0]
        w, t, tt, sy, ty, yy, ww = (state[p + name] for name in NAMES)
        # Older rows move one row further into the past: t becomes t - window_s. The new row is at time 0.
        ty, tt, t = ty - window_s * sy, tt - 2 * window_s * t + window_s**2 * w, t - window_s * w
        known = np.isfinite(y)
        value, one = np.where(known, y, 0.0), known.astype(np.float64)
        parts = (w * keep + one, t * keep, tt * keep, sy * keep + value, ty * keep, yy * keep + value * value,
                 ww * keep * keep + one)  # fmt: skip
        return {p + name: part for name, part in zip(NAMES, parts, strict=True)}

    def line(self, state: State) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Level now, slope per second, the slope's standard error, and -log10 P(a slope as steep by chance).

        NaN (0 for the last) where fewer than four effective rows are known.
        """
        w, t, tt, sy, ty, yy, ww = (state[self.prefix + name] for name in NAMES)
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = np.where(ww > 0, w * w / np.where(ww > 0, ww, 1.0), 0.0)
            mean_t, mean_y = t / w, sy / w
            var_t = np.maximum(tt / w - mean_t**2, 1e-12)
            cov = ty / w - mean_t * mean_y
            slope = cov / var_t
            rest = np.maximum(yy / w - mean_y**2 - slope * cov, 1e-12)
            error = np.sqrt(rest / var_t / np.maximum(rows - 2, 1e-9))
            enough = rows >= 4
            decades = np.where(enough, -log10_student(slope / error, np.maximum(rows - 2, 1.0)), 0.0)
            level = np.where(enough, mean_y - slope * mean_t, np.nan)
        return level, np.where(enough, slope, np.nan), np.where(enough, error, np.nan), np.nan_to_num(decades)
