"""Slots: the rows of a shard's detector banks, one per live series."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schemas.series import Series

Ints = npt.NDArray[np.int64]

LEAST = 64
"""Slots held at least."""


SavedSlots = tuple[list[Series | None], npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int64], int, int]
"""Series, identities, first and last time of every slot; evicted and unwatched so far."""


class Bank(Protocol):
    """Anything that holds one row of state per slot."""

    def resize(self, n: int) -> None:
        """Hold n slots."""
        ...

    def forget(self, slots: npt.NDArray[np.integer[Any]]) -> None:
        """Reset slots."""
        ...

    def take(self, slots: npt.NDArray[np.integer[Any]]) -> None:
        """Hold only these slots, in this order."""
        ...


class Slots:
    """Which series lives in which slot, since when, and when it was last heard of.

    Parameters
    ----------
    banks
        Resized and reset together with the slots.
    max_series
        Series held at most; further ones are turned away and counted in `unwatched`.
    on_new
        Called with the slot and series of every newcomer.
    """

    def __init__(
        self, banks: Sequence[Bank], *, max_series: int, on_new: Callable[[int, Series], None] = lambda _, __: None
    ) -> None:
        self.banks = list(banks)
        self.max_series = max_series
        self.on_new = on_new
        self.evicted = 0
        self.unwatched = 0
        self.series: list[Series | None] = []
        self.ids = np.zeros(0, np.uint64)
        self.first_ns = np.zeros(0, np.int64)
        self.last_ns = np.zeros(0, np.int64)
        self._slot: dict[int, int] = {}
        self._free: Iterator[int] = iter(())
        self._grow(LEAST)

    def __len__(self) -> int:
        """Number of slots, free ones included."""
        return len(self.ids)

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """Which slots hold a series, shape (n,)."""
        return self.first_ns >= 0

    def live_series(self) -> list[Series]:
        """Series of the live slots, in slot order."""
        return [s for s in self.series if s is not None]

    def find(self, ids: npt.NDArray[np.uint64]) -> Ints:
        """Slots of known series."""
        return np.array([self._slot[i] for i in ids.tolist()], np.int64)

    def admit(
        self, ids: npt.NDArray[np.uint64], series: Sequence[Series], weight: Ints, now_ns: int
    ) -> tuple[Ints, Ints]:
        """Give new series a slot, the heaviest first.

        Returns
        -------
        tuple of ndarray
            Slots of the rows that are held, and the numbers of those rows.
        """
        known = ids.tolist()
        new = [i for i, identity in enumerate(known) if identity not in self._slot]
        new.sort(key=lambda i: (-int(weight[i]), known[i]))
        for i in new:
            if len(self._slot) >= self.max_series:
                self.unwatched += 1
                continue
            slot = next(self._free, None)
            if slot is None:
                self._grow(2 * len(self))
                slot = next(self._free)
            self._slot[known[i]] = slot
            self.series[slot] = series[i]
            self.ids[slot] = known[i]
            self.first_ns[slot] = now_ns
            self.on_new(slot, series[i])
        at = np.array([i for i, identity in enumerate(known) if identity in self._slot], np.int64)
        slots = self.find(ids[at])
        self.last_ns[slots] = now_ns
        return slots, at

    def evict(self, before_ns: int) -> Ints:
        """Forget series that were last heard of before that time; returns the slots they had.

        The remaining ones may be renumbered.
        """
        gone = np.flatnonzero(self.live & (self.last_ns < before_ns))
        if len(gone):
            self.evicted += len(gone)
            for slot in gone.tolist():
                del self._slot[int(self.ids[slot])]
                self.series[slot] = None
            self.first_ns[gone] = -1
            self.last_ns[gone] = -1
            self.ids[gone] = 0
            for bank in self.banks:
                bank.forget(gone)
            self._shrink()
        return gone

    def snapshot(self) -> SavedSlots:
        """State for `restore` (without the banks')."""
        return self.series, self.ids, self.first_ns, self.last_ns, self.evicted, self.unwatched

    def restore(self, saved: SavedSlots) -> None:
        """Take over a snapshot and resize the banks to it."""
        self.series, self.ids, self.first_ns, self.last_ns, self.evicted, self.unwatched = saved
        for bank in self.banks:
            bank.resize(len(self.ids))
        self._slot = {int(self.ids[i]): i for i, s in enumerate(self.series) if s is not None}
        self._renew_free()

    def _shrink(self) -> None:
        """Give free slots back where most are free. Live series keep their order, so no answer changes."""
        live = np.flatnonzero(self.live)
        n = LEAST
        while n < 2 * len(live):
            n *= 2
        if 2 * n <= len(self):
            self.series = [self.series[i] for i in live.tolist()]
            self.ids, self.first_ns, self.last_ns = self.ids[live], self.first_ns[live], self.last_ns[live]
            self._slot = {int(identity): i for i, identity in enumerate(self.ids)}
            for bank in self.banks:
                bank.take(live)
            self._grow(n)
        self._renew_free()

    def _grow(self, n: int) -> None:
        more = n - len(self)
        self.series = [*self.series, *itertools.repeat(None, more)]
        self.ids = np.concatenate([self.ids, np.zeros(more, np.uint64)])
        self.first_ns = np.concatenate([self.first_ns, np.full(more, -1, np.int64)])
        self.last_ns = np.concatenate([self.last_ns, np.full(more, -1, np.int64)])
        for bank in self.banks:
            bank.resize(n)
        self._renew_free()

    def _renew_free(self) -> None:
        self._free = iter([i for i, s in enumerate(self.series) if s is None])


class History:
    """The last rows of some features per slot, for sparklines. A bank.

    Parameters
    ----------
    features, length
        How many features and how many rows are kept.
    """

    def __init__(self, features: int, length: int) -> None:
        self.values = np.full((0, features, length), np.nan, np.float32)

    def push(self, rows: Sequence[npt.NDArray[np.float64]]) -> None:
        """Append one row: an array of shape (n,) per feature."""
        self.values[:, :, :-1] = self.values[:, :, 1:]
        for i, row in enumerate(rows):
            self.values[:, i, -1] = row

    def resize(self, n: int) -> None:
        """Hold n slots."""
        kept = self.values[:n]
        more = np.full((n - len(kept), *self.values.shape[1:]), np.nan, np.float32)
        self.values = np.concatenate([kept, more])

    def forget(self, slots: npt.NDArray[np.integer[Any]]) -> None:
        """Reset slots."""
        self.values[slots] = np.nan

    def take(self, slots: npt.NDArray[np.integer[Any]]) -> None:
        """Hold only these slots, in this order."""
        self.values = self.values[slots]
