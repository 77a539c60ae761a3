"""From decoded objects to arrays: texts to codes, optional numbers to `MISSING` or NaN, money to pico-USD."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.columns import MISSING, Coded, FloatArray, IntArray
from schemas.money import to_pico

MAX_USD = 1_000_000
"""Largest amount that is believed."""

Filter = npt.NDArray[np.bool_] | None
"""Rows to keep; None keeps all."""


class TextColumn:
    """Texts of one column, encoded piece by piece with one dictionary. None and the empty text are code 0."""

    def __init__(self) -> None:
        self._codes: defaultdict[str | None, int] = defaultdict(count(1).__next__, {None: 0, "": 0})
        self._pieces: list[npt.NDArray[np.int32]] = []

    def add(self, texts: Sequence[str | None]) -> None:
        """Append rows."""
        n = len(texts)
        if n and texts[0] is None and texts.count(None) == n:  # most fields of most producers
            self._pieces.append(np.zeros(n, dtype=np.int32))
        else:
            self._pieces.append(np.fromiter(map(self._codes.__getitem__, texts), dtype=np.int32, count=n))

    def finish(self, keep: Filter) -> Coded:
        """The whole column."""
        return Coded(joined(self._pieces, np.int32, keep), ["", *(text for text in self._codes if text)])


def joined(pieces: Sequence[npt.NDArray[Any]], kind: npt.DTypeLike, keep: Filter) -> npt.NDArray[Any]:
    """Pieces of a column as one array, rows filtered."""
    whole = np.concatenate(pieces).astype(kind, copy=False) if pieces else np.zeros(0, dtype=kind)
    return whole if keep is None else whole[keep]


def whole_numbers(values: Sequence[int | None]) -> IntArray:
    """Integers up to 2**53, None as `MISSING`."""
    n = len(values)
    if n and values[0] is None and values.count(None) == n:
        return np.full(n, MISSING, dtype=np.int64)
    try:
        return np.fromiter(values, dtype=np.int64, count=n)
    except TypeError:
        # Some are None, which float64 takes as NaN; the schema's bounds keep the rest exact.
        numbers = np.array(values, dtype=np.float64)
        return np.where(np.isnan(numbers), MISSING, numbers).astype(np.int64)


def real_numbers(values: Sequence[float | None]) -> FloatArray:
    """Floats, None as NaN."""
    return np.array(values, dtype=np.float64)


def flags(values: Sequence[bool | None]) -> npt.NDArray[np.int8]:
    """1, 0 or `MISSING`."""
    if None not in values:
        return np.array(values, dtype=np.bool_).astype(np.int8)
    return np.array([MISSING if value is None else int(value) for value in values], dtype=np.int8)


def amounts(values: Sequence[Decimal | None]) -> tuple[IntArray, list[int]]:
    """Money.

    Returns
    -------
    pico : int64, shape (n,)
        pico-USD, `MISSING` where not reported or not usable.
    bad
        Rows whose amount is not a number between 0 and `MAX_USD`.
    """
    n = len(values)
    pico = np.full(n, MISSING, dtype=np.int64)
    bad: list[int] = []
    if n and values[0] is None and values.count(None) == n:
        return pico, bad
    for row, value in enumerate(values):
        if value is not None:
            if value.is_finite() and 0 <= value <= MAX_USD:
                pico[row] = to_pico(value)
            else:
                bad.append(row)
    return pico, bad


class Numbers:
    """Number columns by name, gathered piece by piece."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[npt.NDArray[Any]]] = {}

    def add(self, name: str, values: npt.NDArray[Any]) -> None:
        """Append rows of one column."""
        self._pieces.setdefault(name, []).append(values)

    def finish(self, name: str, kind: npt.DTypeLike, keep: Filter) -> npt.NDArray[Any]:
        """The whole column."""
        return joined(self._pieces.get(name, ()), kind, keep)


def kept(values: list[str | None], keep: Filter) -> list[str | None]:
    """A list's rows, filtered."""
    return values if keep is None else [value for value, wanted in zip(values, keep.tolist(), strict=True) if wanted]
