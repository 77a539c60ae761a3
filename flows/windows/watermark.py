"""The watermark of a shard: the minimum over the partitions that are alive."""

from __future__ import annotations

from collections.abc import Sequence

BEFORE_ALL = -(2**62)
"""Watermark of a partition that nothing is known of."""

AFTER_ALL = 2**62
"""Watermark of a partition that has ended (the end of a file)."""

SavedWatermarks = tuple[dict[str, int], list[str], int]
"""By partition; the idle ones; the minimum."""


class Watermarks:
    """Watermarks of all partitions of one stream, and their minimum.

    A partition that is idle (silent and caught up) does not hold the others back. When all are idle, the slowest of
    those that ever had an event decides. The result never falls.

    Parameters
    ----------
    partitions
        Every partition that the stream has; unheard ones hold the result at `BEFORE_ALL`.
    """

    def __init__(self, partitions: Sequence[str]) -> None:
        self._at: dict[str, int] = dict.fromkeys(partitions, BEFORE_ALL)
        self._idle: set[str] = set()
        self.now_ns = BEFORE_ALL

    def observe(self, partition: str, watermark_ns: int, *, idle: bool = False) -> int:
        """Take over one partition's watermark and return the new minimum."""
        self._at[partition] = max(self._at.get(partition, BEFORE_ALL), watermark_ns)
        (self._idle.add if idle else self._idle.discard)(partition)
        live = [at for name, at in self._at.items() if name not in self._idle]
        if not live:
            live = [at for at in self._at.values() if at > BEFORE_ALL]
        if live:
            self.now_ns = max(self.now_ns, min(live))
        return self.now_ns

    def snapshot(self) -> SavedWatermarks:
        """Copy of the state, for `restore`."""
        return dict(self._at), sorted(self._idle), self.now_ns

    def restore(self, saved: SavedWatermarks) -> None:
        """Take over a snapshot; partitions that no longer exist are dropped."""
        at, idle, self.now_ns = saved
        for name in self._at:
            self._at[name] = at.get(name, BEFORE_ALL)
        self._idle = {name for name in idle if name in self._at}
