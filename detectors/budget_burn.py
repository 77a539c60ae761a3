"""Money budgets: spend that will not last the period."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors import burn
from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import column
from detectors.tail import OPEN_SCORE
from schemas.money import PICO_PER_USD


class BudgetBurn(Detector):
    """Multi-window burn rate of spend against a budget: the arithmetic of `slo_burn`, for money.

    A burn rate of 1 uses up exactly the budget in its period. Unlike failures, money that is on course to exceed the
    budget for days is an incident: the ticket rule opens too. A budget that is used up within a trailing period
    opens as well.

    Parameters
    ----------
    usd
        Budget of a new slot per period; None gives new slots no budget (`set_budget` does).
    period_s
        Its period, seconds.
    warm_up_s
        Time that must have been seen before any score: an hour's burn cannot be told from one batch job earlier.
    """

    kind = "budget_burn"
    stream = "requests"
    cadence = "interval"
    features = ("cost_pico", "requests")
    unit = "USD per hour"
    effect_unit = "USD per hour"

    def __init__(self, usd: float | None = None, period_s: float = burn.PERIOD_S, warm_up_s: float = 1_800.0) -> None:
        self.usd = usd
        self.period_s = period_s
        self.warm_up_s = warm_up_s
        super().__init__()

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {"usd": 100_000.0}

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return {
            "spent": np.zeros((n, len(burn.WINDOWS_S))),
            "spent_period": np.zeros(n),
            "requests_sum": np.zeros(n),
            "seen_s": np.zeros(n),
            "usd": np.full(n, np.nan if self.usd is None else self.usd),
            "period_s": np.full(n, self.period_s),
        }

    def set_budget(
        self, slots: npt.NDArray[np.integer], usd: float | FloatArray, period_s: float | FloatArray = burn.PERIOD_S
    ) -> None:
        """Give slots their budget; NaN takes it away. Forgotten and new slots have the default."""
        self.state["usd"][slots] = usd
        self.state["period_s"][slots] = period_s

    def _sums(self, x: Features) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray]:
        window_s, cost = column(x, "window_s"), column(x, "cost_pico")
        known = np.isfinite(cost)
        usd = np.where(known, cost, 0.0) / PICO_PER_USD
        spent = self.state["spent"] * burn.keep(window_s, self.state["period_s"]) + usd[:, None]
        whole = self.state["spent_period"] * np.maximum(0.0, 1.0 - window_s / self.state["period_s"]) + usd
        return spent, whole, window_s, known

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        spent, whole, window_s, known = self._sums(x)
        usd, period_s = self.state["usd"], self.state["period_s"]
        allowed = usd / period_s
        lengths = np.asarray(burn.WINDOWS_S) * (period_s / burn.PERIOD_S)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            # Time before the series was seen counts as spending nothing: a young series gets no credit for it.
            burns = spent / np.maximum(lengths, window_s[:, None]) / allowed[:, None]
        has = known & np.isfinite(usd) & (usd > 0)
        ready = has & (self.state["seen_s"] >= self.warm_up_s)
        met = np.where(ready[:, None], burn.pressure(burns, np.array([[rule.burn for rule in burn.RULES]])), 0.0)
        score = burn.score_of_pressure(np.nan_to_num(met), ticket_score=OPEN_SCORE)
        with np.errstate(divide="ignore", invalid="ignore"):
            used = np.where(ready, whole / usd, 0.0)
        score = np.maximum(score, np.where(used >= 1.0, OPEN_SCORE, 0.0))
        rule = np.argmax(np.nan_to_num(met), axis=1)[:, None]
        window = np.array([burn.WINDOWS_S.index(r.long_s) for r in burn.RULES])[rule]
        observed = np.take_along_axis(spent / np.maximum(lengths, window_s[:, None]), window, axis=1)[:, 0] * 3600.0
        expected = np.where(has, allowed * 3600.0, np.nan)
        impact = np.where(has, np.maximum(np.nan_to_num(observed - expected), 0.0), np.nan)
        detail = [""] * len(score)
        for slot in np.flatnonzero(score >= OPEN_SCORE):
            detail[slot] = f"{used[slot]:.0%} of {usd[slot]:g} USD used"
        volume = self._requests(x, window_s)
        return Judgement(score, observed, expected, impact, np.nan_to_num(impact), volume, detail)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Add one row to the windows. An open incident changes nothing: the money is spent."""
        spent, whole, window_s, known = self._sums(x)
        requests = self._requests(x, window_s)
        self.state["spent"], self.state["spent_period"], self.state["requests_sum"] = spent, whole, requests
        self.state["seen_s"] = self.state["seen_s"] + np.where(known, window_s, 0.0)

    def _requests(self, x: Features, window_s: FloatArray) -> FloatArray:
        """Requests within an hour."""
        kept = self.state["requests_sum"] * np.maximum(0.0, 1.0 - window_s / 3600.0)
        return np.asarray(kept + np.nan_to_num(column(x, "requests")))
