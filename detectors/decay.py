"""Exponential forgetting in seconds, for rows of any length, and how long a slot stays frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import BoolArray, FloatArray

SELF_FREEZE = 0.35
"""A detector does not learn rows that it scores this high itself, so that it need not wait for the judge."""


def horizon_keep(window_s: FloatArray, horizons_s: npt.ArrayLike) -> FloatArray:
    """Factor on a running sum that covers a horizon. Shape (n,) and (k,) in, (n, k) out.

    In the long run the sum of the weights times `window_s` is exactly the horizon. A row at least as long as the
    horizon stands alone.
    """
    return np.maximum(0.0, 1.0 - window_s[:, None] / np.asarray(horizons_s, dtype=np.float64))


def half_life_keep(window_s: FloatArray, half_lives_s: npt.ArrayLike) -> FloatArray:
    """Factor after which an observation of age `half_life` counts half. Shape (n,) and (k,) in, (n, k) out."""
    return np.asarray(np.exp2(-window_s[:, None] / np.asarray(half_lives_s, dtype=np.float64)))


def obey(
    state: dict[str, npt.NDArray[Any]], wanted: BoolArray, window_s: FloatArray, max_freeze_s: float
) -> tuple[BoolArray, BoolArray]:
    """Decide which slots really stay frozen, and account for it in `state["frozen_s"]`.

    Returns
    -------
    hold
        Slots that learn nothing of the level.
    relearn
        Slots whose freeze has just run out: the change is accepted, and the old level should lose its weight.
    """
    before = state["frozen_s"]
    after = np.where(wanted, np.minimum(before + window_s, 2 * max_freeze_s), np.maximum(before - 10 * window_s, 0.0))
    state["frozen_s"] = after
    return wanted & (after <= max_freeze_s), wanted & (before <= max_freeze_s) & (after > max_freeze_s)


def column(x: Any, name: str) -> FloatArray:
    """One feature as contiguous float64, shape (n,)."""
    return np.ascontiguousarray(x[name], dtype=np.float64)
