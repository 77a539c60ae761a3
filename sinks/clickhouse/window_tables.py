"""Closed windows as Arrow tables, in the shape of `request_windows` and `gpu_windows`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns import DIMENSIONS
from schemas.gpu_window import GPU_SERIES_DIMS, MAXIMA, OWNER_DIMS, STATES, GpuWindows
from schemas.gpu_window import SUMS as GPU_SUMS
from schemas.request_window import QUANTILES, SKETCHES, SUMS, RequestWindows
from schemas.series import Series
from sinks.clickhouse import arrow

MONEY_DIGITS = 38
"""Decimal digits of summed money; 18 could overflow."""

PRICED_SUMS: tuple[str, ...] = tuple(
    name for name in SUMS if name.startswith("cost_") or name in ("wasted_pico", "missed_cache_pico")
)
"""Sums of money that come from prices: not known (NULL) where every request was unpriced."""

GPU_COLUMNS: tuple[str, ...] = tuple(dict.fromkeys([*GPU_SERIES_DIMS, *OWNER_DIMS]))
"""Plain text columns of `gpu_windows`."""


def usd_name(name: str) -> str:
    """Column of the table that holds a sum: `cost_pico` is `cost_usd` there."""
    return f"{name.removesuffix('_pico')}_usd" if name.endswith("_pico") else name


def quantile_columns(sketch: str) -> list[str]:
    """Columns of a distribution's ready-made quantiles, such as `latency_ms_p95`."""
    return [f"{sketch}_p{round(q * 100)}" for q in QUANTILES]


def request_windows(rows: RequestWindows) -> pa.Table:
    """Windows of requests, one row per series."""
    n = len(rows)
    priced = (rows.column("unpriced_requests") < rows.column("requests")) | (rows.column("requests") == 0)
    out = _window(rows, n) | _dims(rows.series, DIMENSIONS, {})
    out |= _sums(rows.sums, SUMS, dict.fromkeys(PRICED_SUMS, priced))
    for name in SKETCHES:
        for i, column in enumerate(quantile_columns(name)):
            out[column] = arrow.reported_floats(rows.quantiles[name][:, i])
        out[f"{name}_buckets"], out[f"{name}_counts"] = arrow.sketch(rows.sketches[name], n)
    return pa.table(out)


def gpu_windows(rows: GpuWindows) -> pa.Table:
    """Windows of GPUs: a row per GPU, then a row per roll-up."""
    spent_ms = sum((rows.column(f"{state}_ms") for state in STATES), np.zeros(len(rows), np.int64))
    priced = (rows.column("unpriced_ms") < spent_ms) | (spent_ms == 0)
    out = _window(rows, len(rows)) | {"is_gpu": pa.array(rows.is_gpu)}
    out |= _dims(rows.series, GPU_COLUMNS, rows.owners)
    out |= _sums(rows.sums, GPU_SUMS, {f"{state}_pico": priced for state in STATES})
    out |= {f"{name}_max": arrow.reported_floats(rows.maximum(name)) for name in MAXIMA}
    out["xids"] = pa.array([list(codes) for codes in rows.xids], pa.list_(pa.uint32()))
    return pa.table(out)


def _window(rows: RequestWindows | GpuWindows, n: int) -> dict[str, pa.Array]:
    """What identifies each row."""
    return {
        "window_start": arrow.times(np.full(n, rows.start_ns, np.int64), "ms"),
        "window_end": arrow.times(np.full(n, rows.end_ns, np.int64), "ms"),
        "version": pa.array(np.full(n, rows.version, np.uint32)),
        "grouping": arrow.texts([",".join(s.dims) for s in rows.series]),
        "series": arrow.texts([s.key() for s in rows.series]),
        "dims": arrow.maps([s.as_dict() for s in rows.series]),
    }


def _dims(
    series: Sequence[Series], names: Sequence[str], otherwise: Mapping[str, Sequence[str]]
) -> dict[str, pa.Array]:
    """One text column per dimension, empty where the series does not have it."""
    n = len(series)
    columns = {name: list(otherwise[name]) if name in otherwise else [""] * n for name in names}
    for i, one in enumerate(series):
        for name, value in zip(one.dims, one.values, strict=True):
            if name in columns:
                columns[name][i] = value
    return {name: arrow.texts(values) for name, values in columns.items()}


def _sums(
    sums: npt.NDArray[np.int64], names: Sequence[str], valid: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, pa.Array]:
    everywhere = np.ones(len(sums), np.bool_)
    out = {}
    for i, name in enumerate(names):
        column = np.ascontiguousarray(sums[:, i])
        if name.endswith("_pico"):
            out[usd_name(name)] = arrow.money(column, valid.get(name, everywhere), MONEY_DIGITS)
        else:
            out[name] = pa.array(column)
    return out
