"""GPU rows → one closed window: a row per GPU, then a row per roll-up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from flows.windows.gpu_states import GpuRows
from flows.windows.sums import add_groups
from schemas.columns import FloatArray, IntArray
from schemas.gpu_window import COLUMN, GPU_SERIES_DIMS, MAXIMA, OWNER_DIMS, ROLLUPS, SUMS, GpuWindows
from schemas.series import Series

UNATTRIBUTED = "unattributed"
"""Team of the GPU time that nobody named as theirs: a visible bucket, so that teams add up to the whole."""


def windows_of(rows: GpuRows, *, start_ns: int, window_ns: int, version: int) -> GpuWindows:
    """Add the roll-ups and make a closed window of it."""
    n = len(rows.series)
    texts = {dim: values.tolist() for dim, values in rows.texts.items()}
    series: list[Series] = list(rows.series)
    sums: list[IntArray] = [rows.sums]
    maxima: list[FloatArray] = [rows.maxima]
    xids: list[tuple[int, ...]] = _distinct(rows.edges, n)
    for dims, group, values in _groups(texts, n):
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(len(values)))
        rolled = [Series("gpus", dims, value) for value in values]
        keys = [one.key() for one in rolled]
        by_key = sorted(range(len(rolled)), key=keys.__getitem__)
        series += [rolled[i] for i in by_key]
        sums.append(add_groups(rows.sums[order], starts)[by_key])
        maxima.append(np.fmax.reduceat(rows.maxima[order], starts, axis=0)[by_key])
        of_group = _distinct(((int(group[row]), code) for row, code in rows.edges), len(values))
        xids += [of_group[i] for i in by_key]
    blank = [""] * (len(series) - n)
    return GpuWindows(
        start_ns=start_ns,
        end_ns=start_ns + window_ns,
        version=version,
        series=series,
        is_gpu=np.arange(len(series)) < n,
        sums=np.concatenate(sums),
        maxima=np.concatenate(maxima),
        owners={dim: texts[dim] + blank for dim in OWNER_DIMS},
        xids=xids,
    )


def changed_rows(old: GpuWindows | None, new: GpuWindows) -> GpuWindows | None:
    """The rows of `new` that `old` has not or has differently, and as zeros those that only `old` has.

    Returns
    -------
    GpuWindows or None
        None where nothing changed.
    """
    if old is None:
        return new
    where = {series: i for i, series in enumerate(old.series)}
    at = np.array([where.pop(series, -1) for series in new.series], np.int64)
    differs = at < 0
    differs |= (new.sums != old.sums[at]).any(axis=1)
    both_nan = np.isnan(new.maxima) & np.isnan(old.maxima[at])
    differs |= ((new.maxima != old.maxima[at]) & ~both_nan).any(axis=1)
    for dim in OWNER_DIMS:
        was = old.owners[dim]
        differs |= np.array([text != was[i] for text, i in zip(new.owners[dim], at.tolist(), strict=True)], np.bool_)
    differs |= np.array([codes != old.xids[i] for codes, i in zip(new.xids, at.tolist(), strict=True)], np.bool_)
    keep = np.flatnonzero(differs).tolist()
    gone = list(where)
    if not keep and not gone:
        return None
    return GpuWindows(
        start_ns=new.start_ns,
        end_ns=new.end_ns,
        version=new.version,
        series=[new.series[i] for i in keep] + gone,
        is_gpu=np.concatenate([new.is_gpu[keep], old.is_gpu[list(where.values())]]).astype(np.bool_),
        sums=np.concatenate([new.sums[keep], np.zeros((len(gone), len(SUMS)), np.int64)]),
        maxima=np.concatenate([new.maxima[keep], np.full((len(gone), len(MAXIMA)), np.nan)]),
        owners={dim: [texts[i] for i in keep] + [""] * len(gone) for dim, texts in new.owners.items()},
        xids=[new.xids[i] for i in keep] + [()] * len(gone),
    )


def gpu_features(rows: GpuWindows) -> dict[str, FloatArray]:
    """Features of every row for the GPU detectors.

    Returns
    -------
    dict
        Every entry of `SUMS` under its name, every entry of `MAXIMA` as `<name>_max` (NaN where not reported),
        `window_s`, and `gpu_util_ms`: the part of `util_ms` that was measured by `gpu_util` only, which says no more
        than that some kernel ran. The latter adds up over windows like the sums. Arrays of shape (n,).
    """
    x = {name: rows.sums[:, i].astype(np.float64) for name, i in COLUMN.items()}
    x |= {f"{name}_max": rows.maxima[:, i].astype(np.float64) for i, name in enumerate(MAXIMA)}
    x["window_s"] = np.full(len(rows), (rows.end_ns - rows.start_ns) / 1e9)
    x["gpu_util_ms"] = _duty_cycle_ms(rows)
    return x


def _duty_cycle_ms(rows: GpuWindows) -> FloatArray:
    """Milliseconds of each row whose utilisation is a duty cycle (`gpu_util`)."""
    gpus = np.flatnonzero(rows.is_gpu).tolist()
    out = np.zeros(len(rows))
    weak = np.array([rows.owners["util_source"][i] == "gpu_util" for i in gpus], np.bool_)
    out[gpus] = np.where(weak, rows.column("util_ms")[gpus], 0)
    texts = {dim: [rows.owners[dim][i] for i in gpus] for dim in OWNER_DIMS}
    for i, dim in enumerate(GPU_SERIES_DIMS):
        texts[dim] = [rows.series[row].values[i] for row in gpus]
    totals: dict[tuple[tuple[str, ...], tuple[str, ...]], float] = {}
    for dims, group, values in _groups(texts, len(gpus)):
        per_group = np.bincount(group, weights=out[gpus], minlength=len(values))
        totals |= {(dims, value): float(ms) for value, ms in zip(values, per_group, strict=True)}
    for row in np.flatnonzero(~rows.is_gpu).tolist():
        out[row] = totals.get((rows.series[row].dims, rows.series[row].values), 0.0)
    return out


def _groups(
    texts: Mapping[str, Sequence[str]], n: int
) -> Iterator[tuple[tuple[str, ...], IntArray, list[tuple[str, ...]]]]:
    """For each roll-up of n GPU rows: its dimensions, the number of each row's group, and the groups' values."""
    coded = {dim: _code(dim, texts[dim]) for dim in dict.fromkeys(dim for dims in ROLLUPS for dim in dims)}
    for dims in ROLLUPS:
        key = np.zeros(n, np.int64)
        for dim in dims:
            key = key * len(coded[dim][1]) + coded[dim][0]
        _, example, group = np.unique(key, return_index=True, return_inverse=True)
        columns = [[coded[dim][1][code] for code in coded[dim][0][example].tolist()] for dim in dims]
        yield dims, group, list(zip(*columns, strict=True)) if dims else [()] * len(example)


def _code(dim: str, texts: Sequence[str]) -> tuple[IntArray, list[str]]:
    """Number the distinct texts."""
    numbers: dict[str, int] = {}
    codes = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, count=len(texts))
    return codes, [text or UNATTRIBUTED if dim == "team" else text for text in numbers]


def _distinct(edges: Iterable[tuple[int, int]], n: int) -> list[tuple[int, ...]]:
    """Codes of each row, each once, in order of appearance."""
    seen: dict[int, dict[int, None]] = {}
    for row, code in edges:
        seen.setdefault(row, {})[code] = None
    out: list[tuple[int, ...]] = [()] * n
    for row, codes in seen.items():
        out[row] = tuple(codes)
    return out
