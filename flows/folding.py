"""Says in the log that values are folded into `other`: a dimension holds identities, or something floods the flow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from flows.steps import GPUS, Closed, Priced

EVERY_S = 3_600.0
WORTH = 1_000
"""Events below which nothing is said."""


class FoldingLog:
    """Counts what is folded and reports it, once an hour for each dimension and stream.

    Parameters
    ----------
    monotonic
        Clock in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._counts: Counter[str] = Counter()
        self._said: dict[str, float] = {}

    def on_requests(self, values: Sequence[Priced]) -> None:
        """Count events whose value of a dimension reads `other`."""
        for priced in values:
            if priced.item.batch is not None:
                for dimension, n in priced.item.batch.other.items():
                    self._count(dimension, n, "windows.max_values_per_dimension")

    def on_closed(self, values: Sequence[Closed]) -> None:
        """Count rows and GPUs beyond the bound."""
        for closed in values:
            if closed.folded:
                self._count("gpus" if closed.shard == GPUS else "series", closed.folded, "windows.max_series")

    def _count(self, what: str, n: int, setting: str) -> None:
        self._counts[what] += n
        now = self._monotonic()
        if self._counts[what] >= WORTH and now - self._said.get(what, -EVERY_S) >= EVERY_S:
            self._said[what] = now
            structlog.get_logger().warning(
                "too many values: the rest reads `other` or is left out",
                what=what,
                n=self._counts.pop(what),
                setting=setting,
            )
