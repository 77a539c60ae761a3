"""Simulated requests as columns, and random numbers that belong to a row rather than to a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ATTEMPT_BITS, INDEX_BITS, SOURCE_BITS = 2, 32, 8
"""Layout of `Rows.id`, low to high: attempt, index within its source, source (0 base, else incident + 1), minute."""


@dataclass(slots=True)
class Rows:
    """Requests before they are written. Arrays of shape (n,)."""

    id: Ints
    """Unique; decides every further random number of the row, so that one row's fate never moves another's."""
    at_ms: Ints
    """End of the call, milliseconds since the start of the simulation."""
    leaf: Ints
    """Number of its workload."""
    user: Ints
    attempt: Ints
    prefix: Ints
    """Which of the workload's prefixes."""
    salt: Ints
    """Nonzero where the prefix is not the usual one."""
    prefix_tokens: Floats
    fresh: Floats
    """Input tokens beside the prefix."""
    output: Floats
    reasoning: Floats
    """Share of the output spent on reasoning."""
    u_hit: Floats
    """Uniform; below `hit` means that the prefix was cached."""
    hit: Floats
    ttft_ms: Floats
    ms_per_token: Floats
    u_fail: Floats
    """Uniform; below the workload's error rate means failure."""
    failure: Ints
    """Number of the failure in `FAILURES`, plus one; 0 is success."""
    used: Floats
    """Part of the vendor quota in use, 0-1."""
    price: Floats
    """Factor on the price list, for producers that report cost."""
    garbage: Ints
    """Way in which the message is spoilt, plus one; 0 is a good message."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.id)

    def take(self, chosen: npt.NDArray[np.bool_] | Ints) -> Rows:
        """The chosen rows, copied."""
        return Rows(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def copy(self) -> Rows:
        """All rows, copied."""
        return Rows(*(getattr(self, f.name).copy() for f in fields(self)))


def concat(parts: Sequence[Rows]) -> Rows:
    """One after the other."""
    if len(parts) == 1:
        return parts[0]
    return Rows(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Rows)))


def mix(ids: Ints, salt: int) -> npt.NDArray[np.uint64]:
    """Scramble ids, one to one: the finaliser of SplitMix64 (Steele, Lea, Flood 2014, fig. 17)."""
    x = ids.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def uniform(ids: Ints, salt: int) -> Floats:
    """A number in [0, 1) for each id, the same for the same id and salt."""
    return np.asarray((mix(ids, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def source_of(ids: Ints) -> Ints:
    """Where rows come from: 0 is everyday traffic, else the number of an event plus one."""
    return np.asarray((ids >> (ATTEMPT_BITS + INDEX_BITS)) & (2**SOURCE_BITS - 1))
