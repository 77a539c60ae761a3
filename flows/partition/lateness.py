"""Event-time progress of one partition: its watermark, and how late each event is against it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.block import NO_TIMESTAMP
from schemas.columns import LATE, ON_TIME, TOO_LATE, IntArray

NO_WATERMARK = -(2**62)
"""Watermark of a partition without events."""
MAX_TIMESTAMP_MS = 9_000_000_000_000
"""Kafka timestamps above this (year 2255) are cut, so that nanoseconds fit int64."""


class Progress:
    """Highest event time of one partition, and lateness by position.

    Parameters
    ----------
    window_ns, disorder_ns, allowed_lateness_ns
        Length of a window; how far behind the newest event an event is still on time; how long a closed window
        takes late events.
    highest_ns
        Highest usable event time so far, None before any.
    """

    def __init__(
        self, window_ns: int, disorder_ns: int, allowed_lateness_ns: int, highest_ns: int | None = None
    ) -> None:
        self.window_ns = window_ns
        self.disorder_ns = disorder_ns
        self.allowed_lateness_ns = allowed_lateness_ns
        self.highest_ns = highest_ns

    @property
    def watermark_ns(self) -> int:
        """Highest event time minus the allowed disorder."""
        return NO_WATERMARK if self.highest_ns is None else self.highest_ns - self.disorder_ns

    def advance(self, at_ns: IntArray) -> tuple[npt.NDArray[np.uint8], IntArray]:
        """Take in event times in order of position.

        Returns
        -------
        lateness : uint8, shape (n,)
            Each event judged by the events before it.
        running_ns : int64, shape (n,)
            Highest event time after each event.
        """
        running = np.maximum.accumulate(at_ns)
        if not len(at_ns):
            return np.zeros(0, dtype=np.uint8), running
        if self.highest_ns is not None:
            np.maximum(running, self.highest_ns, out=running)
        watermark = np.empty_like(running)
        watermark[0] = self.watermark_ns
        watermark[1:] = running[:-1] - self.disorder_ns
        end = (at_ns // self.window_ns + 1) * self.window_ns
        lateness = np.full(len(at_ns), ON_TIME, dtype=np.uint8)
        lateness[watermark >= end] = LATE
        lateness[watermark >= end + self.allowed_lateness_ns] = TOO_LATE
        self.highest_ns = int(running[-1])
        return lateness, running


def clock_ahead(at_ns: IntArray, timestamps_ms: IntArray, max_ahead_ns: int) -> npt.NDArray[np.bool_]:
    """Which events claim to come from further ahead of their Kafka timestamp than allowed (never without one)."""
    stamped = timestamps_ms > NO_TIMESTAMP
    latest = np.clip(timestamps_ms, 0, MAX_TIMESTAMP_MS) * 1_000_000 + max_ahead_ns
    ahead: npt.NDArray[np.bool_] = stamped & (at_ns > latest)
    return ahead
