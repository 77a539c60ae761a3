"""Multi-window burn rates: how many times faster than allowed a budget (of failures, or of money) is used up.

References
----------
Google, The Site Reliability Workbook (2018), chapter 5, table 5-8: of a 30-day budget, page at burn 14.4 over 1 h
and 5 min (2 % of the budget gone) and at burn 6 over 6 h and 30 min (5 %), ticket at burn 1 over 3 d and 6 h (10 %).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from detectors.base import FloatArray
from detectors.tail import OPEN_SCORE

PERIOD_S = 2_592_000.0
"""The table's period: 30 days."""


class Rule(NamedTuple):
    """One row of the table: `long_s` and `short_s` for a period of `PERIOD_S`.

    `still_s` is ours: an exponential window remembers a severe outage for long after it, so a third, shorter window
    must burn as well.
    """

    burn: float
    long_s: float
    short_s: float
    still_s: float
    pages: bool


RULES: tuple[Rule, ...] = (
    Rule(14.4, 3_600.0, 300.0, 300.0, True),
    Rule(6.0, 21_600.0, 1_800.0, 300.0, True),
    Rule(1.0, 259_200.0, 21_600.0, 1_800.0, False),
)
WINDOWS_S: tuple[float, ...] = (300.0, 1_800.0, 3_600.0, 21_600.0, 259_200.0)
"""The distinct windows of `RULES`. Windows are exponential sums with that total weight: no ring of 3 days is kept."""

TICKET_SCORE = OPEN_SCORE - 0.1
"""Score of the ticket condition: visible, but below what pages."""


def keep(window_s: FloatArray, period_s: FloatArray) -> FloatArray:
    """Factor on the window sums for a row, shape (n, len(WINDOWS_S)); windows scale with the period."""
    lengths = np.asarray(WINDOWS_S) * (period_s / PERIOD_S)[:, None]
    return np.maximum(0.0, 1.0 - window_s[:, None] / lengths)


def pressure(burns: FloatArray, thresholds: FloatArray) -> FloatArray:
    """How far each rule's condition is met: 1 where all of its windows burn at its threshold.

    Parameters
    ----------
    burns
        Burn rate per window, shape (n, len(WINDOWS_S)).
    thresholds
        Per slot and rule, shape (n, len(RULES)).
    """
    rates = np.nan_to_num(burns)
    least = np.minimum(rates[:, _index("long_s")], rates[:, _index("short_s")])
    return np.asarray(np.minimum(least, rates[:, _index("still_s")]) / thresholds)


def score_of_pressure(met: FloatArray, ticket_score: float = TICKET_SCORE) -> FloatArray:
    """Score from `pressure`: monotone, `OPEN_SCORE` exactly where a paging rule is met.

    Below the condition the score rises linearly to it; above, every doubling adds 0.1. A ticket rule rises to
    `ticket_score` and no further.
    """
    limits = np.array([OPEN_SCORE if rule.pages else ticket_score for rule in RULES])
    beyond = np.where(
        [rule.pages for rule in RULES], 0.1 * np.log2(np.maximum(met, 1.0)), 0.0
    )  # a ticket does not become a page
    return np.asarray(np.clip(np.max(limits * np.minimum(met, 1.0) + beyond, axis=1), 0.0, 1.0))


def _index(field: str) -> list[int]:
    return [WINDOWS_S.index(getattr(rule, field)) for rule in RULES]
