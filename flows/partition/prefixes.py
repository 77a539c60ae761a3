"""Repeated prompt prefixes: which requests could have read their prefix from the provider's cache.

A request's prefix is repeated if this partition saw the same provider, model and prefix at most the cache's time to
live away in event time. What is remembered is bounded: two generations of identities; a generation ends when the
partition's highest event time enters another span of the time to live, or when it is full. So a prefix is
remembered for at least its time to live unless more than `GENERATION_SIZE` others came in between. Only position and
event time decide.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.columns import Coded, IntArray

GENERATION_SIZE = 25_000
"""Prefixes in one of the two generations."""


class SavedPrefixes(Struct, array_like=True):
    """Identities and last event times of both generations, as little-endian 64-bit integers."""

    span: int | None
    young_keys: bytes
    young_times: bytes
    old_keys: bytes
    old_times: bytes


class Prefixes:
    """Prefixes of one partition that were used lately.

    Parameters
    ----------
    ttl_ns
        How long a provider keeps a prefix.
    size
        Most prefixes in one generation.
    saved
        State of `save`.
    """

    def __init__(self, ttl_ns: int, size: int = GENERATION_SIZE, saved: SavedPrefixes | None = None) -> None:
        self.ttl_ns = max(int(ttl_ns), 1)
        self.size = size
        self.span = saved.span if saved else None
        self.young = _unpacked(saved.young_keys, saved.young_times) if saved else {}
        self.old = _unpacked(saved.old_keys, saved.old_times) if saved else {}

    def save(self) -> SavedPrefixes:
        """State for a restart."""
        return SavedPrefixes(self.span, *_packed(self.young), *_packed(self.old))

    def repeated(
        self, provider: Coded, model: Coded, prefix: Coded, at_ns: IntArray, running_ns: IntArray
    ) -> npt.NDArray[np.bool_]:
        """Judge and remember rows in order of position.

        Parameters
        ----------
        provider, model, prefix
            Columns; rows with an empty prefix are never repeated.
        at_ns, running_ns
            Event times, and the partition's highest event time after each.

        Returns
        -------
        bool, shape (n,)
        """
        result = np.zeros(len(at_ns), dtype=np.bool_)
        rows = np.flatnonzero(prefix.codes)
        if not len(rows):
            return result
        models, providers = len(model.values), len(provider.values)
        combined = prefix.codes[rows].astype(np.int64) * models * providers
        combined += model.codes[rows].astype(np.int64) * providers + provider.codes[rows]
        distinct, groups = np.unique(combined, return_inverse=True)
        identities = [
            _identity(
                provider.values[code % providers],
                model.values[code // providers % models],
                prefix.values[code // providers // models],
            )
            for code in distinct.tolist()
        ]
        times = at_ns[rows]
        spans = running_ns[rows] // self.ttl_ns
        start = 0
        while start < len(rows):
            self._enter(int(spans[start]))
            stop = int(np.searchsorted(spans, spans[start], side="right"))
            stop = self._room(identities, groups, start, stop)
            result[rows[start:stop]] = self._take(identities, groups[start:stop], times[start:stop])
            start = stop
        return result

    def _enter(self, span: int) -> None:
        if self.span is not None and span != self.span:
            self._turn()
        self.span = span

    def _turn(self) -> None:
        self.young, self.old = {}, self.young

    def _room(self, identities: list[int], groups: IntArray, start: int, stop: int) -> int:
        """End of the rows that the young generation can take; turns the generations if it can take none."""
        distinct, first = np.unique(groups[start:stop], return_index=True)
        new = [row for group, row in zip(distinct.tolist(), first.tolist(), strict=True)
               if identities[group] not in self.young]  # fmt: skip
        room = self.size - len(self.young)
        if len(new) <= room:
            return stop
        new.sort()
        if new[room] > 0:
            return start + int(new[room])
        self._turn()
        return self._room(identities, groups, start, stop)

    def _take(self, identities: list[int], groups: IntArray, times: IntArray) -> npt.NDArray[np.bool_]:
        """Judge rows that all fit into the young generation."""
        order = np.argsort(groups, kind="stable")  # by prefix, then by position
        sorted_groups, sorted_times = groups[order], times[order]
        begins = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
        lengths = np.diff(begins, append=len(order))
        # Per prefix: the highest time before each row. Ranks keep the running maximum within its prefix.
        levels = np.unique(sorted_times)
        ranks = np.searchsorted(levels, sorted_times) + np.repeat(np.arange(len(begins)), lengths) * len(levels)
        highest = np.maximum.accumulate(ranks) % len(levels)
        before = np.empty_like(sorted_times)
        before[1:] = levels[highest[:-1]]
        known = np.ones(len(order), dtype=np.bool_)
        ends = levels[highest[begins + lengths - 1]].tolist()
        repeated_at_once: list[tuple[int, int]] = []
        for begin, group, end in zip(begins.tolist(), sorted_groups[begins].tolist(), ends, strict=True):
            identity = identities[group]
            last = self.young.get(identity)
            if last is None:
                last = self.old.get(identity)
            known[begin] = last is not None
            before[begin] = 0 if last is None else last
            if last is not None:
                repeated_at_once.append((begin, last))
            self.young[identity] = end if last is None or end > last else last
        for (begin, last), length in zip(
            repeated_at_once, lengths[np.searchsorted(begins, [b for b, _ in repeated_at_once])].tolist(), strict=True
        ):
            np.maximum(before[begin : begin + length], last, out=before[begin : begin + length])
        result = np.empty(len(order), dtype=np.bool_)
        result[order] = known & (np.abs(sorted_times - before) <= self.ttl_ns)
        return result


def _identity(provider: str, model: str, prefix: str) -> int:
    text = f"{len(provider)}:{len(model)}:{provider}{model}{prefix}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _packed(generation: dict[int, int]) -> tuple[bytes, bytes]:
    keys = np.fromiter(generation.keys(), dtype="<u8", count=len(generation))
    times = np.fromiter(generation.values(), dtype="<i8", count=len(generation))
    return keys.tobytes(), times.tobytes()


def _unpacked(keys: bytes, times: bytes) -> dict[int, int]:
    return dict(zip(np.frombuffer(keys, "<u8").tolist(), np.frombuffer(times, "<i8").tolist(), strict=True))
