"""Daily and weekly rhythms of demand, as tables over the week."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Rhythm = Literal["office", "consumer", "global", "nightly", "hourly"]

STEP_S = 300
STEPS = 7 * 86_400 // STEP_S
MONDAY_S = 4 * 86_400
"""The epoch was a Thursday; the first Monday 00:00 UTC came four days later."""

FloatArray = npt.NDArray[np.float64]


def _bump(hour: FloatArray, centre: float, width: float) -> FloatArray:
    away = np.abs(hour - centre)
    away = np.minimum(away, 24 - away)
    return np.asarray(np.exp(-((away / width) ** 2)))


def week_of(rhythm: Rhythm, utc_offset_h: float) -> FloatArray:
    """Demand over the week from Monday 00:00 UTC, shape (STEPS,), mean 1.

    The amplitudes follow production traffic: ServeGen's hourly means swing by a factor of 1.5 to 2.2 (here `global`);
    office tools swing far more, with quiet weekends.
    """
    second = (np.arange(STEPS) * STEP_S + utc_offset_h * 3600) % (7 * 86_400)
    hour, weekend = second % 86_400 / 3600, second >= 5 * 86_400
    if rhythm == "office":
        level = 0.07 + _bump(hour, 10.5, 2.2) + 0.9 * _bump(hour, 15.0, 2.6)
        level *= np.where(weekend, 0.22, 1.0)
    elif rhythm == "consumer":
        level = 0.22 + 0.6 * _bump(hour, 13.0, 3.5) + _bump(hour, 20.5, 3.2)
        level *= np.where(weekend, 1.2, 1.0)
    elif rhythm == "global":
        level = (1 + 0.35 * np.cos((hour - 15) / 24 * 2 * np.pi)) * np.where(weekend, 0.8, 1.0)
    elif rhythm == "nightly":
        level = 0.02 + 0.5 * (np.tanh((hour - 1.0) * 6) - np.tanh((hour - 3.5) * 6))
    else:
        level = np.where((second % 3600 >= 120) & (second % 3600 < 600), 5.0, 0.2)
    return np.asarray(level / level.mean())


def level_at(weeks: FloatArray, at_s: float) -> FloatArray:
    """Demand of many rhythms at one moment, linear between steps. Shape (n, STEPS) in, (n,) out."""
    step = (at_s - MONDAY_S) / STEP_S
    i = int(step // 1)
    part = step - i
    return np.asarray(weeks[:, i % STEPS] * (1 - part) + weeks[:, (i + 1) % STEPS] * part)
