"""Shifts of a level on a log scale: the statistic that spend, latency and context size share.

Several horizons stand against decayed baselines. Per column (a signal at a horizon)
x = log(mean over the horizon / mean over the baseline), judged by its own
exponentially weighted mean and deviation, z = (x - mean) / sd. The normal tail of z, in factors of ten, is then
calibrated by what the series itself shows: on normal data nothing changes, heavy tails are taken into account.

References
----------
T. Finch (2009), Incremental calculation of weighted mean and variance, section 9 (the statistics of
`river.stats.EWMean` and `EWVar`; here with the bias of the first values removed by dividing by the summed weights).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.base import BoolArray, FloatArray
from detectors.calibration import Calibration
from detectors.decay import half_life_keep, horizon_keep, obey
from detectors.tail import log10_normal

State = dict[str, npt.NDArray[Any]]

PRIOR_ROWS = 8.0
"""Rows that the prior spread is worth."""

RELEARN = 0.02
"""Part of its weight that a level keeps when a lasting change is accepted."""

WINSOR = 2.5
"""Standard deviations beyond which a row counts no further away for mean and spread: one giant request must not
blind the series."""

OUTSIDE = 0.1
"""What such a row counts where ramps are watched."""

SLOW_S = 1_200.0
"""Horizons of this length are not moved by one giant request: what lies far out there is a trend."""

LOWEST = -3.0
"""Floor of x: a row without any spend is not infinitely far below."""


class Horizon(NamedTuple):
    """One column of a shift: how long is averaged, against what, and how much must be known first."""

    length_s: float
    half_life_s: float
    warm_up_s: float


@dataclass(slots=True)
class Shifts:
    """Where every slot stands, shape (n, columns)."""

    x: FloatArray
    """Log ratio against the baseline; NaN where unknown."""
    mean: FloatArray
    """Recent mean of x: the lag of the baseline behind a daily cycle (Brown's double smoothing)."""
    spread: FloatArray
    """Standard deviation of x around it."""
    z: FloatArray
    """(x - mean) / spread."""
    decades: FloatArray
    """Calibrated -log10 of the tail probability; NaN while warming up."""
    level: FloatArray
    baseline: FloatArray
    weight: FloatArray
    """Denominator summed over the horizon: seconds, or requests."""


class Shift:
    """Statistic component; the state lives in the detector.

    Parameters
    ----------
    horizons
        Columns of one signal.
    signals
        Number of signals; columns are horizons of the first signal, then of the second, ...
    spread_half_life_s
        Memory of mean and variance of x.
    prior_spread
        Standard deviation of x of one minute believed before data; less at longer horizons.
    least_spread
        Standard deviations below this are not believed.
    logged
        The level already is a logarithm (a mean of logs): x is then a difference.
    ramps
        Distrust rows far outside when learning what is normal, so that a slow ramp is no excuse for itself. Not for
        signals with a daily cycle, whose every morning is a ramp.
    """

    def __init__(
        self,
        horizons: tuple[Horizon, ...],
        signals: int = 1,
        spread_half_life_s: float = 43_200.0,
        prior_spread: float = 0.5,
        least_spread: float = 0.03,
        logged: bool = False,
        ramps: bool = False,
    ) -> None:
        self.horizons = horizons
        self.signals = signals
        self.spread_half_life_s = spread_half_life_s
        self.prior_spread = prior_spread
        self.least_spread = least_spread
        self.logged = logged
        self.ramps = ramps
        # The mean over a longer horizon wavers less; the prior says so for independent minutes.
        self._prior = np.tile([prior_spread * min(1.0, (60.0 / h.length_s) ** 0.5) for h in horizons], signals)
        self._lengths = np.tile([h.length_s for h in horizons], signals)
        self._half_lives = np.tile([h.half_life_s for h in horizons], signals)
        self._warm_ups = np.tile([h.warm_up_s for h in horizons], signals)
        self.columns = len(self._lengths)
        self.tail = Calibration(self.columns)

    def fresh(self, n: int) -> State:
        """State of n slots that nothing is known about."""
        names = ("num", "den", "base_num", "base_den", "x_weight", "x_sum", "away_weight", "away_square", "seen_s")
        state: State = {name: np.zeros((n, self.columns)) for name in names}
        state["frozen_s"] = np.zeros(n)
        return state | self.tail.fresh(n)

    def judge(self, state: State, num: FloatArray, den: FloatArray, window_s: FloatArray) -> Shifts:
        """Judge one row.

        Parameters
        ----------
        num, den
            Numerator and denominator of the level in this row, shape (n, signals); NaN where not measured.
        window_s
            Length of the row, shape (n,).
        """
        new_num, new_den = self._sums(state, num, den, window_s)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.where(new_den > 0, new_num / new_den, np.nan)
            baseline = np.where(state["base_den"] > 0, state["base_num"] / state["base_den"], np.nan)
            x = level - baseline if self.logged else np.log(np.where(baseline > 0, level / baseline, np.nan))
            x = np.maximum(x, LOWEST)
            mean = state["x_sum"] / (state["x_weight"] + PRIOR_ROWS / 4)
            away = x - mean
            variance = (state["away_square"] + PRIOR_ROWS * self._prior**2) / (state["away_weight"] + PRIOR_ROWS)
            spread = np.maximum(np.sqrt(variance), self.least_spread)
            z = away / spread
        present = np.repeat(np.isfinite(num) & np.isfinite(den), len(self.horizons), axis=1)
        ready = present & (state["seen_s"] >= self._warm_ups)
        decades = np.where(ready, self.tail.decades(state, -log10_normal(z)), np.nan)
        return Shifts(x, mean, spread, z, decades, level, baseline, new_den)

    def learn(
        self,
        state: State,
        num: FloatArray,
        den: FloatArray,
        window_s: FloatArray,
        wanted: BoolArray,
        max_freeze_s: float,
    ) -> None:
        """Learn one row; `wanted` slots (shape (n,)) are to stay frozen."""
        shifts = self.judge(state, num, den, window_s)
        hold, relearn = obey(state, wanted, window_s, max_freeze_s)
        state["num"], state["den"] = self._sums(state, num, den, window_s)

        if relearn.any():
            for name in ("base_num", "base_den", "x_weight", "x_sum"):
                state[name][relearn] *= RELEARN

        width = len(self.horizons)
        present = np.repeat(np.isfinite(num) & np.isfinite(den), width, axis=1)
        learned = present & ~hold[:, None]
        # x and z were measured against the baseline before this row: score first, learn second.
        counts = learned & np.isfinite(shifts.x)
        away = np.clip(shifts.x - shifts.mean, -WINSOR * shifts.spread, WINSOR * shifts.spread)
        part = np.where(counts, np.where(self.ramps & (np.abs(shifts.z) > WINSOR), OUTSIDE, 1.0), 0.0)
        level_keep = half_life_keep(window_s, self._half_lives)
        keep = np.where(counts, level_keep, 1.0)
        state["x_weight"] = state["x_weight"] * keep + part
        state["x_sum"] = state["x_sum"] * keep + np.where(counts, part * (shifts.mean + away), 0.0)
        keep = np.where(counts, half_life_keep(window_s, [self.spread_half_life_s]), 1.0)
        state["away_weight"] = state["away_weight"] * keep + part
        state["away_square"] = state["away_square"] * keep + np.where(counts, part * away**2, 0.0)
        fresh_part = np.minimum(1.0, 3 * window_s[:, None] / self._lengths)
        far = self.ramps & (shifts.z > 4.0) & (self._lengths >= SLOW_S)
        fresh_part = fresh_part * np.where(far, OUTSIDE, 1.0)
        # The tail is learned once mean and spread mean something.
        settled = counts & (state["away_weight"] > 2 * PRIOR_ROWS)
        self.tail.learn(state, -log10_normal(shifts.z), fresh_part, settled)

        keep = np.where(learned, level_keep, 1.0)
        new_num = np.where(learned, np.repeat(num, width, axis=1), 0.0)
        new_den = np.where(learned, np.repeat(den, width, axis=1), 0.0)
        state["base_num"] = state["base_num"] * keep + new_num
        state["base_den"] = state["base_den"] * keep + new_den
        state["seen_s"] = state["seen_s"] + np.where(
            present & (np.repeat(den, width, axis=1) > 0), window_s[:, None], 0.0
        )

    def _sums(
        self, state: State, num: FloatArray, den: FloatArray, window_s: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Sums over the horizons with this row; a row that was not measured leaves them alone."""
        width = len(self.horizons)
        present = np.repeat(np.isfinite(num) & np.isfinite(den), width, axis=1)
        keep = np.where(present, horizon_keep(window_s, self._lengths), 1.0)
        new_num = state["num"] * keep + np.where(present, np.repeat(num, width, axis=1), 0.0)
        new_den = state["den"] * keep + np.where(present, np.repeat(den, width, axis=1), 0.0)
        return new_num, new_den
