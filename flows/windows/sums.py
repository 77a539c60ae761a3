"""Adding up without overflow: what would leave the range stays at its end, whatever the order of adding."""

from __future__ import annotations

import numpy as np

from schemas.columns import IntArray

LARGEST_SUM = 1 << 62
"""Where a sum stops (4.6 million USD in one series and window). No true sum comes near; a row that reads this was fed
with amounts that nobody can have spent. Stopping at the top is associative, so merging in any order gives the same."""

_LOW_BITS = 31
_LOW = (1 << _LOW_BITS) - 1


def add_groups(rows: IntArray, starts: IntArray) -> IntArray:
    """Sum of each run of rows.

    Parameters
    ----------
    rows
        Shape (n, k), each value from 0 to `LARGEST_SUM`.
    starts
        First row of each run, ascending; no run is empty.
    """
    if not len(rows):
        return rows
    longest = int(np.diff(starts, append=len(rows)).max())
    if int(rows.max()) <= LARGEST_SUM // longest:
        sums: IntArray = np.add.reduceat(rows, starts, axis=0)
        return sums
    low = np.add.reduceat(rows & _LOW, starts, axis=0)
    high = np.add.reduceat(rows >> _LOW_BITS, starts, axis=0) + (low >> _LOW_BITS)
    full = high >= LARGEST_SUM >> _LOW_BITS
    return np.where(full, LARGEST_SUM, (np.where(full, 0, high) << _LOW_BITS) | (low & _LOW))
