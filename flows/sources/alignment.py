"""Partitions that are read at one pace of event time.

A window closes when the slowest partition has passed it, so whatever the others read ahead of that one waits in the
state of windows, detectors and the judge, and is saved with every epoch. After hours away a thin stream would be read
to its end before a thick one has begun. So a partition that is far ahead rests until the slowest has come nearer.
This changes when something is read and never what comes of it.
"""

from __future__ import annotations

import threading

AHEAD_NS = 60 * 1_000_000_000
"""Event time that a partition may be ahead of the slowest one that has something to read."""

SPAN_MS = 600 * 1_000
"""Time that the messages of one block may span, by their time stamps: a thin partition comes in pieces, too."""


class Alignment:
    """Where the partitions of one process are. Safe among threads.

    Parameters
    ----------
    ahead_ns
        How far the others may be ahead of the slowest.
    """

    def __init__(self, ahead_ns: int = AHEAD_NS) -> None:
        self.ahead_ns = ahead_ns
        self._at_ns: dict[str, int] = {}
        self._lock = threading.Lock()

    def has_read(self, partition: str, watermark_ns: int) -> None:
        """Note how far a partition is; from now on the others wait for it."""
        with self._lock:
            self._at_ns[partition] = watermark_ns

    def has_nothing(self, partition: str) -> None:
        """A partition without messages: nobody waits for it."""
        with self._lock:
            self._at_ns.pop(partition, None)

    def may_read(self, watermark_ns: int) -> bool:
        """Whether a partition that is at this watermark may read on."""
        with self._lock:
            return watermark_ns <= min(self._at_ns.values(), default=watermark_ns) + self.ahead_ns
