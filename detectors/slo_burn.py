"""Service level objectives: the error budget burns too fast."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors import burn
from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import column
from detectors.tail import log10_binomial
from schemas.cause import CAUSES
from schemas.request_window import ERROR_SUMS


class SloBurn(Detector):
    """Multi-window burn rate of the share of failed requests against an objective.

    Nothing is learned: an objective is a promise. Every slot has its own (`set_objective`); slots without one score 0.

    Parameters
    ----------
    objective
        Promised share of good requests of a new slot; None gives new slots no objective.
    excluded_causes
        Causes of failure that do not count against the objective.
    min_failures
        Failures within a rule's long window below which the rule stays silent.
    max_share
        A rule never asks for more than this share of failures: 14.4 times a loose objective's budget could not be
        reached at all.
    significance
        The failures of the long window must be this unlikely (factors of ten) at a burn rate of 1: few requests
        prove nothing.

    References
    ----------
    See `detectors.burn`.
    """

    kind = "slo_burn"
    stream = "requests"
    cadence = "interval"
    features = ("requests", "errors", *ERROR_SUMS)
    unit = "burn rate"
    effect_unit = "failed requests per minute"

    def __init__(
        self,
        objective: float | None = 0.95,
        excluded_causes: tuple[str, ...] = ("bad_request",),
        min_failures: float = 5.0,
        max_share: float = 0.5,
        significance: float = 3.0,
    ) -> None:
        known = [cause.label for cause in CAUSES]
        for cause in excluded_causes:
            if cause not in known:
                raise ValueError(f"unknown cause of failure {cause!r}; known are {', '.join(known)}")
        if objective is not None and not 0 < objective < 1:
            raise ValueError(f"an objective lies between 0 and 1, got {objective}")
        self.objective = objective
        self.excluded_causes = excluded_causes
        self.min_failures = min_failures
        self.max_share = max_share
        self.significance = significance
        super().__init__()

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        width = len(burn.WINDOWS_S)
        objective = np.nan if self.objective is None else self.objective
        return {"bad": np.zeros((n, width)), "all": np.zeros((n, width)), "objective": np.full(n, objective)}

    def set_objective(self, slots: npt.NDArray[np.integer], objective: float | FloatArray) -> None:
        """Give slots their objective, in (0, 1); NaN takes it away. Forgotten and new slots have the default."""
        self.state["objective"][slots] = objective

    def _sums(self, x: Features) -> tuple[FloatArray, FloatArray, BoolArray]:
        requests, errors = column(x, "requests"), column(x, "errors")
        known = np.isfinite(requests) & np.isfinite(errors)
        excluded = np.zeros(len(requests))
        for cause in self.excluded_causes:
            excluded += np.nan_to_num(column(x, f"errors_{cause}"))
        total = np.where(known, np.maximum(requests - excluded, 0.0), 0.0)
        bad = np.where(known, np.clip(errors - excluded, 0.0, total), 0.0)
        window_s = column(x, "window_s")
        kept = burn.keep(window_s, np.full(len(requests), burn.PERIOD_S))
        return self.state["bad"] * kept + bad[:, None], self.state["all"] * kept + total[:, None], known

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        bad, total, known = self._sums(x)
        allowed = 1.0 - self.state["objective"][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            burns = np.where(total > 0, bad / total, 0.0) / allowed
            thresholds = np.minimum([[rule.burn for rule in burn.RULES]], self.max_share / allowed)
        long = [burn.WINDOWS_S.index(rule.long_s) for rule in burn.RULES]
        budget = np.nan_to_num(np.clip(allowed, 0.0, 1.0))
        proof = -log10_binomial(bad[:, long], total[:, long], np.broadcast_to(budget, (len(bad), len(long))))
        enough = (bad[:, long] >= self.min_failures) & (proof >= self.significance)
        has = known & np.isfinite(self.state["objective"])
        met = np.where(enough & has[:, None], burn.pressure(burns, np.maximum(thresholds, 1e-9)), 0.0)
        rule = np.argmax(np.nan_to_num(met), axis=1)[:, None]
        # Reported is the burn over the long window of the rule that is closest to its condition.
        window = np.asarray(long)[rule]
        observed = np.where(has, np.take_along_axis(burns, window, axis=1)[:, 0], np.nan)
        minutes = 5.0
        effect = np.where(has, np.maximum(bad[:, 0] - budget[:, 0] * total[:, 0], 0.0) / minutes, 0.0)
        volume = np.take_along_axis(total, window, axis=1)[:, 0]
        expected = np.where(has, 1.0, np.nan)
        return Judgement(
            burn.score_of_pressure(np.nan_to_num(met)), observed, expected, np.full(len(bad), np.nan), effect, volume
        )

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Add one row to the windows. An open incident changes nothing: the budget burns on."""
        self.state["bad"], self.state["all"], _ = self._sums(x)
