"""Partial aggregates → closed windows of one shard, by watermark.

A window closes when the shard's watermark reaches its end; it then holds exactly the events that were on time in
their own partition. Late ones are kept apart until the allowed lateness is over, and then the window is written once
more, under version 2. So neither block boundaries nor the interleaving of partitions can change an answer; only the
idle timeout can, and what it cost is counted in `dropped`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.state import fingerprint, pack, unpack_or_cold
from flows.windows.partials import Partials, Rows, merge_rows, take_rows
from flows.windows.watermark import AFTER_ALL, BEFORE_ALL, SavedWatermarks, Watermarks
from schemas.request_window import COLUMN, QUANTILES, SKETCHES, SUMS, RequestWindows
from schemas.series import Series
from schemas.sketch import quantiles

_COMPACT_AT = 16
"""Partials of one window that are held apart before they are added up."""

_Saved = tuple[SavedWatermarks, dict[int, list[Rows]], dict[int, list[Rows]], dict[int, Rows], int, int]


class RequestMerge:
    """Merges the partials of one shard.

    Parameters
    ----------
    partitions
        Every partition of the stream; the watermark waits for all of them.
    window_ns, allowed_lateness_ns
        As in the settings.
    max_rows
        Rows kept per window; beyond it the series with the fewest requests read `other` in all dimensions.
    saved
        What `snapshot` returned.
    """

    FORMAT = fingerprint(1, SUMS, SKETCHES)

    def __init__(
        self,
        partitions: Sequence[str],
        *,
        window_ns: int,
        allowed_lateness_ns: int,
        max_rows: int = 1_000_000,
        saved: bytes | None = None,
    ) -> None:
        self.window_ns = window_ns
        self.allowed_lateness_ns = allowed_lateness_ns
        self.max_rows = max_rows
        self.watermarks = Watermarks(partitions)
        self.dropped = 0
        """Requests that came after their window's last version because their partition had been idle."""
        self.folded = 0
        """Rows that were folded into `other`."""
        self._open: dict[int, list[Rows]] = {}
        self._late: dict[int, list[Rows]] = {}
        self._closed: dict[int, Rows] = {}
        """Version 1 of windows that may still get a version 2."""
        state = unpack_or_cold("request_merge", self.FORMAT, saved, _Saved)
        if state is not None:
            marks, self._open, self._late, self._closed, self.dropped, self.folded = state
            self.watermarks.restore(marks)

    @property
    def watermark_ns(self) -> int:
        """Event time up to which every window is closed."""
        return self.watermarks.now_ns

    def add(self, partials: Partials) -> None:
        """Take over one block's contribution; windows close in `advance`."""
        now = self.watermarks.now_ns
        for start, late, rows in partials.parts:
            end = start + self.window_ns
            if end + self.allowed_lateness_ns <= now:
                self.dropped += int(rows.sums[:, COLUMN["requests"]].sum())
                continue
            held = (self._late if late or end <= now else self._open).setdefault(start, [])
            held.append(rows)
            if len(held) >= _COMPACT_AT:
                held[:] = [merge_rows(held)]
        self.watermarks.observe(partials.partition, partials.watermark_ns, idle=partials.idle)

    def advance(self) -> list[RequestWindows]:
        """Windows that the watermark has passed, in order of their start; then second versions."""
        now = self.watermarks.now_ns
        if now == BEFORE_ALL:
            return []
        out = []
        for start in sorted(s for s in self._open if s + self.window_ns <= now):
            rows = self._bounded(merge_rows(self._open.pop(start)))
            self._closed[start] = rows
            out.append(self._finished(start, 1, rows))
        limit = now - self.window_ns - self.allowed_lateness_ns
        for start in sorted(s for s in self._late if s <= limit):
            late = self._bounded(merge_rows(self._late.pop(start)))
            rows = merge_rows([self._closed.get(start, Rows.empty()), late])
            changed = np.isin(rows.ids, late.ids)
            out.append(self._finished(start, 2, rows, changed))
        for start in [s for s in self._closed if s <= limit]:
            del self._closed[start]
        return out

    def flush(self) -> list[RequestWindows]:
        """Close everything: there is no more input."""
        self.watermarks.now_ns = AFTER_ALL
        return self.advance()

    def snapshot(self) -> bytes:
        """State for `saved`."""
        state: _Saved = (
            self.watermarks.snapshot(), self._open, self._late, self._closed, self.dropped, self.folded
        )  # fmt: skip
        return pack("request_merge", self.FORMAT, state)

    def _bounded(self, rows: Rows) -> Rows:
        surplus = len(rows.ids) - self.max_rows
        if surplus <= 0:
            return rows
        self.folded += surplus
        requests = rows.sums[:, COLUMN["requests"]]
        fewest = np.lexsort((rows.ids, requests))[: surplus + 1]
        series = list(rows.series)
        ids = rows.ids.copy()
        for i in fewest.tolist():
            series[i] = Series(series[i].stream, series[i].dims, ("other",) * len(series[i].dims))
            ids[i] = series[i].identity()
        return merge_rows([Rows(ids, series, rows.sums, rows.sketches)], distinct=False)

    def _finished(self, start: int, version: int, rows: Rows, changed: Any = None) -> RequestWindows:
        if changed is not None and not changed.all():
            rows = take_rows(rows, np.flatnonzero(changed))
        n = len(rows.ids)
        return RequestWindows(
            start_ns=start,
            end_ns=start + self.window_ns,
            version=version,
            series=rows.series,
            ids=rows.ids,
            sums=rows.sums,
            sketches=rows.sketches,
            quantiles={
                name: quantiles(
                    rows.sketches[name].rows, rows.sketches[name].buckets, rows.sketches[name].counts, n, QUANTILES
                )
                for name in SKETCHES
            },
        )
