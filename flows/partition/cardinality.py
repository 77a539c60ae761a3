"""Bounded cardinality: the most active values of a dimension keep their name, the rest reads `other`.

Only the position in the partition and event time decide. Within a period (an hour of the partition's highest event
time) new values are named while there is room. Every value's activity is counted, up to a bounded number of counters.
The event that carries the highest event time into another period closes the finished one: its most active values
(ties by name) are the named ones from there on.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.columns import Coded, IntArray

OTHER = "other"
PERIOD_NS = 3_600 * 1_000_000_000
COUNTERS_PER_NAME = 4
"""Values counted per value that can be named; the activity of further values is one sum."""


class SavedTable(Struct, array_like=True):
    """State of one dimension's table."""

    period: int | None
    named: list[str]
    counts: dict[str, int]
    overflow: int


class NameTable:
    """Named values of one dimension.

    Parameters
    ----------
    size
        Most values that are named at a time.
    saved
        State of `save`.
    """

    def __init__(self, size: int, saved: SavedTable | None = None) -> None:
        self.size = size
        self.period = saved.period if saved else None
        self.named: dict[str, None] = dict.fromkeys(saved.named if saved else ())
        self.counts: dict[str, int] = dict(saved.counts) if saved else {}
        self.overflow = saved.overflow if saved else 0

    def save(self) -> SavedTable:
        """State for a restart."""
        return SavedTable(self.period, list(self.named), dict(self.counts), self.overflow)

    def apply(self, column: Coded, periods: IntArray) -> tuple[Coded, int]:
        """Bound one column.

        Parameters
        ----------
        column
            Full texts.
        periods
            Number of the period of the partition's highest event time at each row; never falls.

        Returns
        -------
        bounded : Coded
            Named texts and `other`; the empty text stays.
        others : int
            Rows that read `other`.
        """
        codes = column.codes
        out = codes.copy()
        other_code = len(column.values)
        cuts = [0, *(np.flatnonzero(np.diff(periods)) + 1).tolist(), len(codes)]
        for start, stop in pairwise(cuts):
            if start < stop:
                self._enter(int(periods[start]))
                hidden = self._take(codes[start:stop], column.values)
                if len(hidden):
                    rows = np.isin(codes[start:stop], hidden)
                    out[start:stop][rows] = other_code
        others = int(np.count_nonzero(out == other_code))
        return Coded(out, [*column.values, OTHER] if others else list(column.values)), others

    def _enter(self, period: int) -> None:
        if self.period is not None and period != self.period:
            ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
            self.named = {name: None for name, _ in ranked[: self.size]}
            self.counts = {}
            self.overflow = 0
        self.period = period

    def _take(self, codes: npt.NDArray[np.int32], values: list[str]) -> npt.NDArray[np.int32]:
        """Count and admit the values of consecutive rows of one period; return the codes that are not named."""
        activity = np.bincount(codes, minlength=len(values))
        first = np.full(len(values), len(codes), dtype=np.int64)
        # Written backwards, the first row of each code is what stays.
        first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
        seen = np.flatnonzero(activity)
        hidden: list[int] = []
        for code in seen[np.argsort(first[seen], kind="stable")].tolist():
            value = values[code]
            if value == "":
                continue
            if value in self.counts:
                self.counts[value] += int(activity[code])
            elif len(self.counts) < COUNTERS_PER_NAME * self.size:
                self.counts[value] = int(activity[code])
            else:
                self.overflow += int(activity[code])
            if value not in self.named:
                if len(self.named) < self.size:
                    self.named[value] = None
                else:
                    hidden.append(code)
        return np.array(hidden, dtype=np.int32)
