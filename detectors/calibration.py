"""Streaming self-calibration: how far out a statistic lies, by its own series' past.

A statistic's nominal tail (normal, binomial) is wrong on real series: over-dispersed, autocorrelated, heavy-tailed.
Each slot and column therefore learns the 95 % quantile of its statistic and the first two moments of what exceeds
it; beyond the quantile the tail is a generalised Pareto distribution. Floors keep it from becoming more
sensitive than the nominal tail.

References
----------
H. Robbins, S. Monro (1951), A stochastic approximation method. J. R. M. Hosking, J. R. Wallis (1987), Parameter and
quantile estimation for the generalized Pareto distribution, section 2 (moments). Peaks over threshold on streams:
A. Siffer et al. (2017), Anomaly detection in streams with extreme value theory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import BoolArray, FloatArray

TAIL = 0.05
"""Probability above the learned quantile."""

NOMINAL = (-math.log10(TAIL), 1 / math.log(10))
"""95 % quantile and mean excess of -log10 of an exact tail probability: such a statistic is left as it is."""

State = dict[str, npt.NDArray[Any]]


class Calibration:
    """Learned upper tails of a bank of statistics, shape (n, columns). State lives in the caller's dict.

    Parameters
    ----------
    columns
        Statistics per slot.
    floor
        Least 95 % quantile and least mean excess (`NOMINAL` for -log10 of a nominal tail).
    prior
        What is believed before data: factors on both floors, above 1 to be careful.
    memory
        Effective rows that the quantile remembers.
    prefix
        Of the names of its state arrays.
    """

    def __init__(
        self,
        columns: int,
        floor: tuple[float, float] = NOMINAL,
        prior: tuple[float, float] = (1.15, 1.25),
        memory: float = 2_000.0,
        prefix: str = "tail",
    ) -> None:
        self.columns = columns
        self.floor = floor
        self.prior = prior
        self.memory = memory
        self._names = tuple(f"{prefix}_{part}" for part in ("quantile", "excess", "square", "count"))

    def fresh(self, n: int) -> State:
        """State of n slots that nothing is known about."""
        quantile, excess = self.floor[0] * self.prior[0], self.floor[1] * self.prior[1]
        start = (quantile, excess, 2 * excess * excess, 0.0)
        return {name: np.full((n, self.columns), value) for name, value in zip(self._names, start, strict=True)}

    def decades(self, state: State, statistic: FloatArray) -> FloatArray:
        """Calibrated -log10 of P(as high or higher), at least 0; NaN where the statistic is NaN."""
        raw_quantile, raw_excess, square, _ = (state[name] for name in self._names)
        quantile, excess = np.maximum(raw_quantile, self.floor[0]), np.maximum(raw_excess, self.floor[1])
        variance = np.maximum(square - raw_excess * raw_excess, 1e-12)
        # Method of moments: shape = (1 - mean^2 / variance) / 2; an exponential tail has shape 0.
        # Estimation noise alone reads as some 0.03 of shape.
        shape = np.clip(0.5 * (1 - raw_excess * raw_excess / variance) - 0.03, 0.0, 0.5)
        scale = excess * (1 - shape)
        with np.errstate(invalid="ignore"):
            y = np.maximum(statistic - quantile, 0.0) / scale
            safe = np.maximum(shape, 1e-9)
            beyond = np.where(shape > 1e-3, np.log1p(safe * y) / safe, y) / math.log(10.0)
            below = np.maximum(statistic, 0.0) / quantile * NOMINAL[0]
            return np.where(statistic > quantile, NOMINAL[0] + beyond, below)

    def learn(self, state: State, statistic: FloatArray, weight: FloatArray, mask: BoolArray) -> None:
        """Learn one row.

        Parameters
        ----------
        statistic
            Shape (n, columns).
        weight
            Independent observations that the row is worth, in (0, 1]: the statistic of an hour's horizon hardly
            changes within a minute.
        mask
            Which of them to learn.
        """
        quantile, excess, square, count = (state[name] for name in self._names)
        known = mask & np.isfinite(statistic)
        w = np.where(known, weight, 0.0)
        value = np.where(known, statistic, 0.0)
        above = known & (value > quantile)
        # One enormous value must not blind the slot: what is learned of it is bounded.
        over = np.where(above, np.clip(value - quantile, 0.0, 12 * excess), 0.0)
        count += w
        step = w * np.maximum(1 / (count + 60.0), 1 / self.memory)
        moved = quantile + step * excess * (above / TAIL - 1.0)
        gain = np.where(above, w * np.maximum(1 / (TAIL * count + 8.0), 1 / (TAIL * self.memory)), 0.0)
        excess += gain * (over - excess)
        square += gain * (over * over - square)
        quantile[...] = np.maximum(moved, 0.0)
