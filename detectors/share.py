"""Shares of a whole (errors of requests, cached of input): exact count tails against a learned share.

The tail is binomial, widened by a learned over-dispersion factor (quasi-likelihood: counts divided by the factor)
and calibrated by what the series itself shows.

References
----------
P. McCullagh, J. A. Nelder (1989), Generalized linear models, section 4.5 (over-dispersion).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import BoolArray, FloatArray
from detectors.calibration import Calibration
from detectors.decay import half_life_keep, horizon_keep, obey
from detectors.tail import log10_binomial, log10_binomial_low

State = dict[str, npt.NDArray[Any]]

RELEARN = 0.02
"""Part of its weight that the learned share keeps when a lasting change is accepted."""

SPREAD_PRIOR = 20.0
"""Rows that the belief "no over-dispersion" is worth."""


@dataclass(slots=True)
class Shares:
    """Where every slot stands, shape (n, horizons) unless said."""

    share: FloatArray
    """Over the horizon; NaN without trials."""
    base: FloatArray
    """Learned share, shape (n, 1)."""
    hits: FloatArray
    trials: FloatArray
    nominal: FloatArray
    """-log10 of the quasi-binomial tail."""
    decades: FloatArray
    """The same, calibrated; NaN while warming up or where the row was not measured."""


class Share:
    """Statistic component for one share; the state lives in the detector.

    Parameters
    ----------
    horizons_s
        Lengths of the sums, seconds; a horizon not longer than a row is the row alone.
    half_life_s
        Of the learned share.
    warm_up_s
        Time with trials before any score.
    upper
        Judge unusually high shares, otherwise unusually low ones.
    prior_hits, prior_trials
        What is believed before data.
    least_base
        Floor of the learned share.
    prefix
        Of the names of its state arrays.
    """

    def __init__(
        self,
        horizons_s: tuple[float, ...],
        half_life_s: float,
        warm_up_s: float,
        upper: bool = True,
        prior_hits: float = 0.5,
        prior_trials: float = 100.0,
        least_base: float = 0.0,
        prefix: str = "",
    ) -> None:
        self.horizons_s = horizons_s
        self.half_life_s = half_life_s
        self.warm_up_s = warm_up_s
        self.upper = upper
        self.prior_hits = prior_hits
        self.prior_trials = prior_trials
        self.least_base = least_base
        self.prefix = prefix
        self.tail = Calibration(len(horizons_s), prior=(1.1, 1.2), prefix=f"{prefix}tail")

    def fresh(self, n: int) -> State:
        """State of n slots that nothing is known about."""
        p, k = self.prefix, len(self.horizons_s)
        state: State = {f"{p}{name}": np.zeros((n, k)) for name in ("hits", "trials", "count", "chi", "chi_weight")}
        state |= {f"{p}{name}": np.zeros((n, 1)) for name in ("base_hits", "base_count")}
        return state | {f"{p}seen_s": np.zeros(n), f"{p}frozen_s": np.zeros(n)} | self.tail.fresh(n)

    def judge(
        self, state: State, hits: FloatArray, trials: FloatArray, window_s: FloatArray, count: FloatArray | None = None
    ) -> Shares:
        """Judge one row.

        Parameters
        ----------
        hits, trials
            Shape (n,); NaN where not measured.
        count
            Independent trials behind `trials` (requests behind tokens); `trials` itself where None.
        """
        p = self.prefix
        new_hits, new_trials, new_count, known = self._sums(state, hits, trials, count, window_s)
        base = self._base(state)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(new_trials > 0, new_hits / new_trials, np.nan)
        effective = np.nan_to_num(np.clip(share, 0.0, 1.0)) * new_count
        spread = np.maximum(1.0, (state[f"{p}chi"] + SPREAD_PRIOR) / (state[f"{p}chi_weight"] + SPREAD_PRIOR))
        tail = log10_binomial if self.upper else log10_binomial_low
        nominal = -tail(effective / spread, new_count / spread, np.broadcast_to(base, share.shape))
        ready = known[:, None] & (state[f"{p}seen_s"] >= self.warm_up_s)[:, None] & (new_count > 0)
        decades = np.where(ready, self.tail.decades(state, nominal), np.nan)
        return Shares(share, base, new_hits, new_trials, nominal, decades)

    def learn(
        self,
        state: State,
        hits: FloatArray,
        trials: FloatArray,
        window_s: FloatArray,
        wanted: BoolArray,
        max_freeze_s: float,
        count: FloatArray | None = None,
    ) -> None:
        """Learn one row; `wanted` slots are to stay frozen."""
        p = self.prefix
        shares = self.judge(state, hits, trials, window_s, count)
        base = shares.base
        new_hits, new_trials, new_count, known = self._sums(state, hits, trials, count, window_s)
        frozen = {"frozen_s": state[f"{p}frozen_s"]}
        hold, relearn = obey(frozen, wanted, window_s, max_freeze_s)
        state[f"{p}frozen_s"] = frozen["frozen_s"]
        if relearn.any():
            for name in ("base_hits", "base_count"):
                state[p + name][relearn] *= RELEARN

        learned = (known & ~hold)[:, None]
        row_weight = np.minimum(1.0, window_s[:, None] / np.asarray(self.horizons_s))
        settled = learned & (new_count > 0) & (state[f"{p}seen_s"] >= self.warm_up_s / 2)[:, None]
        expected = new_count * base
        away = np.nan_to_num(shares.share) * new_count - expected
        with np.errstate(divide="ignore", invalid="ignore"):
            # Squared Pearson residual; bounded, so that one outage does not blind the slot for a day.
            chi = np.where(settled, np.minimum(away * away / (expected * (1 - base)), 30.0), 0.0)
        keep = np.where(settled, half_life_keep(window_s, [self.half_life_s]), 1.0)
        state[f"{p}chi"] = state[f"{p}chi"] * keep + row_weight * np.nan_to_num(chi)
        state[f"{p}chi_weight"] = state[f"{p}chi_weight"] * keep + np.where(settled, row_weight, 0.0)
        self.tail.learn(state, shares.nominal, np.minimum(1.0, 3 * row_weight), settled)

        state[f"{p}hits"], state[f"{p}trials"], state[f"{p}count"] = new_hits, new_trials, new_count
        counted = np.where(known, trials if count is None else count, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            row_share = np.where(known & (trials > 0), np.clip(hits / trials, 0.0, 1.0), 0.0)
        keep = np.where(learned, half_life_keep(window_s, [self.half_life_s]), 1.0)
        state[f"{p}base_hits"] = state[f"{p}base_hits"] * keep + np.where(learned, (row_share * counted)[:, None], 0.0)
        state[f"{p}base_count"] = state[f"{p}base_count"] * keep + np.where(learned, counted[:, None], 0.0)
        state[f"{p}seen_s"] = state[f"{p}seen_s"] + np.where(known & (counted > 0), window_s, 0.0)

    def _base(self, state: State) -> FloatArray:
        hits, count = state[f"{self.prefix}base_hits"], state[f"{self.prefix}base_count"]
        return np.asarray(np.clip((hits + self.prior_hits) / (count + self.prior_trials), self.least_base, 1.0))

    def _sums(
        self, state: State, hits: FloatArray, trials: FloatArray, count: FloatArray | None, window_s: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray]:
        """Sums over the horizons with this row; a row that was not measured only lets time pass."""
        p = self.prefix
        known = np.isfinite(hits) & np.isfinite(trials)
        if count is not None:
            known &= np.isfinite(count)
        keep = horizon_keep(window_s, self.horizons_s)
        add = [np.where(known, v, 0.0)[:, None] for v in (hits, trials, trials if count is None else count)]
        sums = [state[p + name] * keep + row for name, row in zip(("hits", "trials", "count"), add, strict=True)]
        return sums[0], sums[1], sums[2], known
