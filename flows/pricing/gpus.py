"""What GPUs cost per hour, by model and day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction

import numpy as np

from flows.pricing.genai import day_ns
from flows.pricing.overlay import GpuPrice
from schemas.columns import MISSING, GpuColumns, IntArray
from schemas.money import PICO_PER_USD

_PROFILE = re.compile(r"(?<!\d)(\d)g\.\d+gb", re.IGNORECASE)
"""MIG profile, such as `1g.10gb`: the first number counts compute slices."""

_SLICES = (("*a30*", 4), ("*", 7))
"""Compute slices of a whole GPU (NVIDIA MIG user guide, table of supported profiles): 4 on A30, 7 on all others."""

_MAX_CACHED = 4096


class GpuPrices:
    """Price per hour of a GPU model over time.

    Parameters
    ----------
    entries
        Last match wins; patterns ignore case.
    """

    def __init__(self, entries: Sequence[GpuPrice]) -> None:
        self._entries = list(entries)
        self._starts = np.array(
            sorted({day_ns(d) for e in entries for d in (e.valid_from, e.valid_to) if d is not None}), np.int64
        )
        self._known: dict[tuple[str, str], IntArray] = {}

    def apply(self, columns: GpuColumns) -> GpuColumns:
        """Fill `usd_per_hour_pico` where it is not given. Unknown models stay `MISSING`.

        A MIG instance costs its share of compute slices; where its profile is not readable from `mig_id` or
        `gpu_model`, it stays `MISSING`, so that no GPU is counted several times.
        """
        rows = np.flatnonzero(columns.usd_per_hour_pico == MISSING)
        if not len(rows):
            return columns
        models, migs = columns.dims["gpu_model"], columns.dims["mig_id"]
        pairs = models.codes[rows].astype(np.int64) * len(migs.values) + migs.codes[rows]
        unique, inverse = np.unique(pairs, return_inverse=True)
        table = np.stack(
            [self._over_time(models.values[p // len(migs.values)], migs.values[p % len(migs.values)]) for p in unique]
        )
        interval = np.searchsorted(self._starts, columns.at_ns[rows], side="right")
        filled = columns.usd_per_hour_pico.copy()
        filled[rows] = table[inverse, interval]
        return replace(columns, usd_per_hour_pico=filled)

    def _over_time(self, model: str, mig: str) -> IntArray:
        """Pico-USD per hour in every interval between starts, shape (len(starts) + 1,)."""
        key = (model, mig)
        known = self._known.get(key)
        if known is None:
            name = model.lower()
            share = _share(name, mig)
            matching = [e for e in self._entries if fnmatchcase(name, e.gpu_model.lower())]
            first = [self._starts[0] - 1] if len(self._starts) else [0]
            known = np.array([_price(matching, int(at), share) for at in [*first, *self._starts]], np.int64)
            if len(self._known) >= _MAX_CACHED:
                self._known.clear()
            self._known[key] = known
        return known


def _share(name: str, mig: str) -> Fraction | None:
    """Part of the GPU that an instance holds; None where that cannot be told."""
    profile = _PROFILE.search(mig) or _PROFILE.search(name)
    if profile is None:
        return None if mig else Fraction(1)
    slices = next(count for pattern, count in _SLICES if fnmatchcase(name, pattern))
    return min(Fraction(int(profile.group(1)), slices), Fraction(1))


def _price(matching: Sequence[GpuPrice], at_ns: int, share: Fraction | None) -> int:
    usd: Decimal | None = None
    for entry in matching:
        begun = entry.valid_from is None or day_ns(entry.valid_from) <= at_ns
        if begun and (entry.valid_to is None or at_ns < day_ns(entry.valid_to)):
            usd = entry.usd_per_hour
    return MISSING if usd is None or share is None else round(Fraction(usd) * PICO_PER_USD * share)
