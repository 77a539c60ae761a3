"""What is remembered of every GPU from one window to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.windows.gpu_samples import GpuName
from schemas.columns import MISSING, IntArray
from schemas.gpu_window import GPU_SERIES_DIMS, OWNER_DIMS
from schemas.series import Series

NEVER = -(2**61)
"""Time of what has not happened, in milliseconds; far enough from the limits of int64 to subtract."""

GpuKey = tuple[str, ...]
"""Identity of a GPU: ("uuid", UUID, MIG) or, where no UUID is known, ("index", cluster, node, index, MIG)."""

Place = tuple[str, str, str]
"""Cluster, node and index: where a GPU sits."""

_TIMES = (
    "last_ms", "util_ms", "memory_ms", "running_ms", "fault_ms",
    *(f"{dim}_ms" for dim in ("namespace", "pod", "team", "model")),
)  # fmt: skip
_FLOATS = ("util", "running")
_INTS = ("memory_used", "memory_total", "price", "xid", "ecc", "preemptions")
_TEXTS = (*OWNER_DIMS, "cluster", "node")
_IDENTITY = ("key", "series", "series_key")

Columns = dict[str, npt.NDArray[Any]]

SavedBank = tuple[Columns, dict[str, list[str]], list[GpuKey], dict[Place, tuple[str, int]]]
"""Numbers and texts by column, keys in the order of their slots, places."""


class GpuBank:
    """Carried state of all GPUs, one slot each, as columns.

    Parameters
    ----------
    evict_after_ms
        A GPU without samples for so long is forgotten: what it reports next is the first that is known of it.
    max_gpus
        GPUs remembered at most; the samples of further ones are in no window.
    """

    def __init__(self, evict_after_ms: int, max_gpus: int) -> None:
        self.evict_after_ms = evict_after_ms
        self.max_gpus = max_gpus
        self.turned_away = 0
        """GPUs, counted once per window, that there was no room for."""
        self.columns = _fresh(0)
        self.slots: dict[GpuKey, int] = {}
        self.places: dict[Place, tuple[str, int]] = {}
        """UUID that was seen at a place, and when: samples that know only the index are of that GPU."""

    def __len__(self) -> int:
        """Number of GPUs."""
        return len(self.slots)

    # ------------------------------------------------------------------ identity
    def identify(self, names: Sequence[GpuName], start_ms: int) -> list[GpuKey]:
        """Keys of the named GPUs; names with both UUID and index teach where that GPU sits.

        Parameters
        ----------
        names
            All names of one window, in any order.
        start_ms
            The window's start.
        """
        learned: dict[Place, str] = {}
        for cluster, node, uuid, index, _ in names:
            if uuid and index:
                # Should two UUIDs claim one place, the greater one has it, whatever the order of the names.
                learned[cluster, node, index] = max(uuid, learned.get((cluster, node, index), ""))
        for place, uuid in sorted(learned.items()):
            if place in self.places or len(self.places) < self.max_gpus:
                self.places[place] = (uuid, start_ms)
        oldest = start_ms - self.evict_after_ms
        keys: list[GpuKey] = []
        for cluster, node, uuid, index, mig_id in names:
            if not uuid:
                seen = self.places.get((cluster, node, index))
                if seen is None or seen[1] < oldest:
                    keys.append(("index", cluster, node, index, mig_id))
                    continue
                uuid = seen[0]
            keys.append(("uuid", uuid, mig_id))
        return keys

    def admit(self, keys: Sequence[GpuKey], start_ms: int) -> IntArray:
        """Slots of the keys, new ones where needed; -1 where there is no room.

        Parameters
        ----------
        keys
            All keys of one window, in any order.
        start_ms
            The window's start.
        """
        if len(self.slots) + len(set(keys) - self.slots.keys()) > self.max_gpus:
            self.compact(start_ms)
        new = set(keys) - self.slots.keys()
        room = self.max_gpus - len(self.slots)
        if len(new) > room:
            # Which ones find room must not depend on the order in which partitions were read.
            self.turned_away += len(new) - room
            new = set(sorted(new)[: max(room, 0)])
        for key in keys:
            if key in new and key not in self.slots:
                self.slots[key] = len(self.slots)
        out = np.fromiter((self.slots.get(key, -1) for key in keys), np.int64, count=len(keys))
        have = len(self.columns["last_ms"])
        if len(self.slots) > have:
            more = _fresh(max(len(self.slots), 2 * have) - have)
            self.columns = {name: np.concatenate([c, more[name]]) for name, c in self.columns.items()}
        held = np.flatnonzero(out >= 0)
        self.columns["key"][out[held]] = np.fromiter(keys, dtype=object, count=len(keys))[held]
        return out

    # ------------------------------------------------------------------ state
    def forget_silent(self, slots: IntArray, start_ms: int) -> None:
        """Reset those of the slots that were silent for too long before `start_ms`."""
        old = slots[self.columns["last_ms"][slots] < start_ms - self.evict_after_ms]
        fresh = _fresh(len(old))
        for name, values in self.columns.items():
            if name not in _IDENTITY:
                values[old] = fresh[name]

    def compact(self, start_ms: int) -> None:
        """Drop silent GPUs for good. No answer depends on when this happens, only memory does."""
        n = len(self.slots)
        limit = start_ms - self.evict_after_ms
        keep = np.flatnonzero(self.columns["last_ms"][:n] >= limit)
        if len(keep) < n:
            self.columns = {name: values[keep] for name, values in self.columns.items()}
            self.slots = {key: i for i, key in enumerate(self.columns["key"].tolist())}
        if any(seen < limit for _, seen in self.places.values()):
            self.places = {place: known for place, known in self.places.items() if known[1] >= limit}

    def name_series(self, slots: IntArray, clusters: Sequence[str], nodes: Sequence[str]) -> None:
        """Give each slot the series of its GPU at that place."""
        c = self.columns
        old_clusters, old_nodes = c["cluster"][slots].tolist(), c["node"][slots].tolist()
        named = c["series"][slots].tolist()
        for i, (cluster, node) in enumerate(zip(clusters, nodes, strict=True)):
            if named[i] is not None and cluster == old_clusters[i] and node == old_nodes[i]:
                continue
            slot = int(slots[i])
            key: GpuKey = c["key"][slot]
            series = Series("gpus", GPU_SERIES_DIMS, (cluster, node, *key[-2:]))
            c["cluster"][slot], c["node"][slot] = cluster, node
            c["series"][slot], c["series_key"][slot] = series, series.key()

    # ------------------------------------------------------------------ copies and snapshots
    def copy(self) -> GpuBank:
        """A bank that knows the same and then goes its own way."""
        twin = GpuBank(self.evict_after_ms, self.max_gpus)
        twin.columns = {name: values.copy() for name, values in self.columns.items()}
        twin.slots, twin.places = dict(self.slots), dict(self.places)
        return twin

    def knows_the_same(self, other: GpuBank) -> bool:
        """Whether both would account any further samples in the same way."""
        if self.slots.keys() != other.slots.keys() or self.places != other.places:
            return False
        mine = np.fromiter(self.slots.values(), np.int64, count=len(self.slots))
        theirs = np.fromiter((other.slots[key] for key in self.slots), np.int64, count=len(self.slots))
        for name in (*_TIMES, *_FLOATS, *_INTS, *_TEXTS):
            a, b = self.columns[name][mine], other.columns[name][theirs]
            if not np.array_equal(a, b, equal_nan=name in _FLOATS):
                return False
        return True

    def snapshot(self) -> SavedBank:
        """State for `restore`; series are named again from key and place."""
        n = len(self.slots)
        columns = {name: self.columns[name][:n] for name in (*_TIMES, *_FLOATS, *_INTS)}
        texts = {name: self.columns[name][:n].tolist() for name in _TEXTS}
        return columns, texts, list(self.slots), self.places

    def restore(self, saved: SavedBank) -> None:
        """Take over a snapshot."""
        columns, texts, keys, self.places = saved
        self.columns = _fresh(len(keys)) | columns
        self.columns |= {name: np.fromiter(values, dtype=object, count=len(keys)) for name, values in texts.items()}
        self.columns["key"] = np.fromiter(keys, dtype=object, count=len(keys))
        self.slots = {key: i for i, key in enumerate(keys)}


def _fresh(n: int) -> Columns:
    """State of n GPUs that nothing is known of."""
    out: Columns = {name: np.full(n, NEVER, np.int64) for name in _TIMES}
    out |= {name: np.full(n, np.nan) for name in _FLOATS}
    out |= {name: np.full(n, MISSING, np.int64) for name in _INTS}
    out |= {name: np.full(n, "", dtype=object) for name in _TEXTS}
    out |= {name: np.full(n, None, dtype=object) for name in _IDENTITY}
    return out
