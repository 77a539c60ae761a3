"""GPU samples as they travel from a block to the merge: columns by window, with each GPU named once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.columns import MISSING, TOO_LATE, Coded, GpuColumns, IntArray
from schemas.gpu_window import OWNER_DIMS

TextArray = npt.NDArray[np.object_]
"""Texts; the empty one stands for "not reported"."""

NUMBERS: tuple[str, ...] = (
    "util", "memory_used_bytes", "memory_total_bytes", "power_w", "temperature_c", "xid", "ecc_uncorrected",
    "throttled", "requests_running", "requests_waiting", "kv_cache_usage", "preemptions", "tokens_per_s",
    "usd_per_hour_pico",
)  # fmt: skip
"""Columns of `GpuColumns` that windows are made of."""

FLOATS: tuple[str, ...] = (
    "util", "power_w", "temperature_c", "requests_running", "requests_waiting", "kv_cache_usage", "tokens_per_s",
)  # fmt: skip
"""Those of them in which NaN marks what was not reported; `MISSING` does in the others."""

NAME_DIMS: tuple[str, ...] = ("cluster", "node", "gpu_uuid", "gpu_index", "mig_id")
"""How a sample names its GPU."""

GpuName = tuple[str, str, str, str, str]
"""Values of `NAME_DIMS`."""


@dataclass(slots=True)
class GpuSamples:
    """Samples of one window, all from one partition. Arrays of shape (n,).

    Parameters
    ----------
    topic, partition, offsets, positions
        Where each sample comes from; they order samples of equal time.
    at_ns
        Event time.
    names, name
        By name of `NAME_DIMS`, the texts of each distinct GPU; and each sample's index into them.
    texts
        By name of `OWNER_DIMS`.
    numbers
        By name of `NUMBERS`; `MISSING` or NaN where not reported. Columns that no sample reported are left out.
    """

    topic: str
    partition: int
    offsets: IntArray
    positions: IntArray
    at_ns: IntArray
    names: dict[str, list[str]]
    name: npt.NDArray[np.int32]
    texts: dict[str, Coded]
    numbers: dict[str, npt.NDArray[np.generic]]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.at_ns)

    def gpus(self) -> list[GpuName]:
        """The distinct GPUs' names."""
        return list(zip(*(self.names[dim] for dim in NAME_DIMS), strict=True))

    def text(self, dim: str) -> TextArray:
        """One text column, shape (n,)."""
        coded = self.texts[dim]
        return np.array(coded.values, dtype=object)[coded.codes]

    def number(self, name: str) -> npt.NDArray[np.generic]:
        """One number column, shape (n,)."""
        missing = np.nan if name in FLOATS else MISSING
        return self.numbers[name] if name in self.numbers else np.full(len(self), missing)


@dataclass(slots=True)
class GpuPartials:
    """What one block contributes: (window start in ns, late, samples), each pair at most once, ascending."""

    parts: list[tuple[int, bool, GpuSamples]]


def fold_gpus(columns: GpuColumns, *, window_ns: int) -> GpuPartials:
    """Spread a block's samples over their windows; samples that are too late are left out.

    Samples are not added up here: how long a state lasted depends on the GPU's previous sample, which may sit in
    another block or partition. The merge does it, in the order of event time.

    Parameters
    ----------
    columns
        One block.
    window_ns
        Length of the tumbling windows.
    """
    use = np.flatnonzero(columns.lateness != TOO_LATE)
    if len(use) == 0:
        return GpuPartials([])
    slot = columns.at_ns[use] // window_ns * 2 + (columns.lateness[use] > 0)
    order = np.argsort(slot, kind="stable")
    values, first = np.unique(slot[order], return_index=True)
    name = _number_names(columns, use)
    parts = []
    for value, within in zip(values.tolist(), np.split(order, first[1:]), strict=True):
        rows = use[within]
        _, example, local = np.unique(name[within], return_index=True, return_inverse=True)
        samples = GpuSamples(
            topic=columns.topic,
            partition=columns.partition,
            offsets=columns.offsets[rows],
            positions=columns.positions[rows],
            at_ns=columns.at_ns[rows],
            names={dim: _texts(columns.dims[dim], rows[example]) for dim in NAME_DIMS},
            name=local.astype(np.int32),
            texts={dim: _used(columns.dims[dim], rows) for dim in OWNER_DIMS},
            numbers={number: told for number in NUMBERS if (told := _reported(columns, number, rows)) is not None},
        )
        parts.append((int(value // 2) * window_ns, bool(value % 2), samples))
    return GpuPartials(parts)


def _texts(coded: Coded, rows: IntArray) -> list[str]:
    return [coded.values[code] for code in coded.codes[rows].tolist()]


def _used(coded: Coded, rows: IntArray) -> Coded:
    """The rows of a column, with no value that they do not use."""
    codes, local = np.unique(coded.codes[rows], return_inverse=True)
    return Coded(local.astype(np.int32), [coded.values[code] for code in codes.tolist()])


def _reported(columns: GpuColumns, number: str, rows: IntArray) -> npt.NDArray[np.generic] | None:
    values = np.asarray(getattr(columns, number))[rows]
    reported = ~np.isnan(values) if number in FLOATS else values != MISSING
    return values if reported.any() else None


def _number_names(columns: GpuColumns, use: IntArray) -> IntArray:
    """Number the distinct GPU names of the used samples."""
    number = np.zeros(len(use), np.int64)
    for dim in NAME_DIMS:
        coded = columns.dims[dim]
        # Renumbering after every dimension keeps the product of two code ranges far below 2**63.
        number = np.unique(number * (len(coded.values) + 1) + coded.codes[use], return_inverse=True)[1]
    return number
