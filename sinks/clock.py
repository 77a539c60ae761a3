"""A clock for deliveries: it reads like the wall clock and never jumps."""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyClock:
    """Epoch seconds as of the start, counted on by a clock that nobody can set.

    What waits until a time is neither frozen when the wall clock is set back nor hurried when it is set ahead.

    Parameters
    ----------
    wall
        Epoch seconds; asked once.
    ticks
        Seconds that only ever grow.

    Examples
    --------
    >>> wall, ticks = [1_000.0], [5.0]
    >>> clock = SteadyClock(wall=lambda: wall[0], ticks=lambda: ticks[0])
    >>> wall[0], ticks[0] = 10.0, 7.5
    >>> clock()
    1002.5
    """

    def __init__(self, *, wall: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic) -> None:
        self._ticks = ticks
        self._offset_s = wall() - ticks()

    def __call__(self) -> float:
        """Epoch seconds."""
        return self._ticks() + self._offset_s
