"""Arrow arrays from our columns, without a Python object per row.

Where the memory layout allows, an array shares the columns' buffers: the columns must not be changed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns import MISSING, Coded
from schemas.request_window import SparseSketches

MAX_ROW_PICO = 10**18 - 1
"""Largest amount that `Decimal(18, 12)` holds, just below 1,000,000 USD; an event's larger amount is stored as this."""

_TIMES = {"ns": 1, "us": 1_000, "ms": 1_000_000}


def coded(column: Coded) -> pa.Array:
    """A dictionary-encoded text column."""
    return labels(column.codes, column.values)


def labels(codes: npt.NDArray[Any], values: Sequence[str]) -> pa.Array:
    """Texts by small code numbers. Values may repeat: the server refuses dictionaries that do, so they are merged."""
    numbers = codes.astype(np.int32, copy=False)
    place = {value: i for i, value in enumerate(dict.fromkeys(values))}
    if len(place) < len(values):
        numbers = np.array([place[value] for value in values], np.int32)[numbers]
    return pa.DictionaryArray.from_arrays(pa.array(numbers), pa.array(list(place), pa.string()))


def constant(value: str, n: int) -> pa.Array:
    """The same text in n rows."""
    return labels(np.zeros(n, np.int32), [value])


def sparse_texts(texts: Mapping[int, str], n: int) -> pa.Array:
    """Texts of a few rows, by row number; empty elsewhere."""
    codes = np.zeros(n, np.int32)
    codes[list(texts)] = np.arange(1, len(texts) + 1)
    return labels(codes, ["", *texts.values()])


def texts(values: Iterable[str]) -> pa.Array:
    """Plain texts."""
    return pa.array(values if isinstance(values, list) else list(values), pa.string())


def times(ns: npt.NDArray[np.int64], unit: str = "ns") -> pa.Array:
    """Nanoseconds since the epoch as UTC times."""
    return pa.array(ns // _TIMES[unit] if unit != "ns" else ns, pa.int64()).cast(pa.timestamp(unit, tz="UTC"))


def validity(valid: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    """Arrow's validity bitmap; None where every row is valid."""
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _with_validity(kind: pa.DataType, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(valid), [validity(valid), data])


def reported_ints(values: npt.NDArray[np.integer], kind: pa.DataType | None = None) -> pa.Array:
    """Integers, NULL where `MISSING`."""
    wanted = pa.int64() if kind is None else kind
    return _with_validity(wanted, values.astype(wanted.to_pandas_dtype(), copy=False), values != MISSING)


def reported_floats(values: npt.NDArray[np.float64]) -> pa.Array:
    """Floats, NULL where NaN."""
    return _with_validity(pa.float64(), values, ~np.isnan(values))


def reported_flags(values: npt.NDArray[np.int8]) -> pa.Array:
    """Booleans from 1, 0 or `MISSING`."""
    bits = np.packbits(values == 1, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [validity(values != MISSING), pa.py_buffer(bits)])


def money(pico: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_] | None = None, precision: int = 18) -> pa.Array:
    """Exact USD from pico-USD.

    An Arrow decimal is a 128-bit integer, low word first: the amount, then its sign.

    Parameters
    ----------
    pico
        Amounts, shape (n,).
    valid
        False where the amount is not known (NULL); by default where it is `MISSING`.
    precision
        Decimal digits in all, 12 of them behind the point; 18 saturates at `MAX_ROW_PICO`.
    """
    known = pico != MISSING if valid is None else valid
    words = np.empty((len(pico), 2), np.int64)
    words[:, 0] = np.clip(pico, -MAX_ROW_PICO, MAX_ROW_PICO) if precision <= 18 else pico
    words[:, 1] = words[:, 0] >> 63
    return _with_validity(pa.decimal128(precision, 12), words, known)


def sketch(cells: SparseSketches, n: int) -> tuple[pa.Array, pa.Array]:
    """Buckets and their counts as one pair of lists per row."""
    offsets = pa.array(np.searchsorted(cells.rows, np.arange(n + 1)).astype(np.int32))
    buckets = pa.ListArray.from_arrays(offsets, pa.array(cells.buckets.astype(np.int16, copy=False)))
    counts = pa.ListArray.from_arrays(offsets, pa.array(cells.counts.astype(np.uint32)))
    return buckets, counts


def maps(dicts: Sequence[Mapping[str, str]]) -> pa.Array:
    """One map of texts per row."""
    offsets = np.zeros(len(dicts) + 1, np.int32)
    np.cumsum([len(d) for d in dicts], out=offsets[1:])
    keys = [key for d in dicts for key in d]
    values = [value for d in dicts for value in d.values()]
    return pa.MapArray.from_arrays(pa.array(offsets), texts(keys), texts(values))
