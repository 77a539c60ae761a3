"""What watching requests and watching GPUs have in common: rows in order, empty ones included, slots and state."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from flows.banks import MAX_EMPTY, Plan, SavedBanks, restore_banks, saved_banks
from flows.slots import Bank, SavedSlots, Slots
from flows.state import pack, unpack_or_cold
from schemas.findings import Progress, Report

NS = 1_000_000_000

PIECE = 100_000
"""Judged series after which a report is handed on; some hundred bytes each."""


class Window(Protocol):
    """A closed window of any stream."""

    start_ns: int
    version: int


W = TypeVar("W", bound=Window)


class ShardDetection(abc.ABC, Generic[W]):
    """Watches the series of one shard.

    Parameters
    ----------
    plan
        Detectors to run.
    window_ns, interval_ns
        Length of a window and of the detection interval (cut to a multiple of it).
    max_series
        Series watched at most.
    evict_after_ns
        A series that was not heard of for so long is forgotten.
    saved
        What `snapshot` returned.
    """

    COMPONENT: ClassVar[str]
    FORMAT: ClassVar[str]
    OWN_STATE: ClassVar[Any]
    """Type of the subclass's part of the state."""

    def __init__(
        self,
        plan: Plan,
        *,
        window_ns: int,
        interval_ns: int,
        max_series: int,
        evict_after_ns: int,
        saved: bytes | None = None,
    ) -> None:
        self.shard = ""
        self.window_ns = window_ns
        self.interval_ns = max(interval_ns - interval_ns % window_ns, window_ns)
        self.evict_after_ns = evict_after_ns
        self.detectors = {name: make() for name, make in plan.detectors.items()}
        self.slots = Slots(
            [*self.detectors.values(), *self._more_banks()],
            max_series=max_series,
            on_new=plan.greeter(self.detectors),
        )
        self._next_ns: int | None = None
        self._empty_run = 0
        self._forget_pending()
        kind: Any = tuple[SavedSlots, SavedBanks, int | None, int, self.OWN_STATE]  # type: ignore[name-defined]
        state = unpack_or_cold(self.COMPONENT, self.FORMAT, saved, kind)
        if state is not None:
            slots, banks, self._next_ns, self._empty_run, own = state
            self.slots.restore(slots)
            restore_banks(self.detectors, banks)
            self._restore(own)

    def progress(self, shard: str, windows: Sequence[W], watermark_ns: int) -> Iterator[Progress]:
        """Judge the first versions of closed windows, and the empty ones between them up to the watermark.

        Reports of many series are large, and event time may jump over hundreds of rows: so they come in pieces of at
        most `PIECE` judged series, each with the event time up to which everything is judged. Whoever stops in between
        may go on later by calling again with the same arguments.

        Parameters
        ----------
        shard
            Name under which the judge knows this shard.
        windows
            In order of their start.
        watermark_ns
            Event time up to which everything is closed.
        """
        self.shard = shard
        reports: list[Report] = []
        judged = 0
        for row in self._rows(windows, watermark_ns):
            if judged >= PIECE and self._next_ns is not None:
                yield Progress(shard, self._next_ns, reports, self.slots.evicted, self.slots.unwatched)
                reports, judged = [], 0
            reports += row()
            judged += len(self.slots)
        yield Progress(shard, watermark_ns, reports, self.slots.evicted, self.slots.unwatched)

    def on_windows(self, shard: str, windows: Sequence[W], watermark_ns: int) -> list[Report]:
        """All reports of `progress` at once."""
        return [report for piece in self.progress(shard, windows, watermark_ns) for report in piece.reports]

    def _rows(self, windows: Sequence[W], watermark_ns: int) -> Iterator[Callable[[], list[Report]]]:
        """What is still to be judged, row by row; nothing is judged before the row is called."""
        for w in windows:
            if w.version == 1 and (self._next_ns is None or w.start_ns >= self._next_ns):
                yield from self._empty_rows(w.start_ns)
                self._empty_run = 0
                yield partial(self._judge_next, w.start_ns, w)
        if watermark_ns < 2**61:  # at the end of the input there is no "up to"
            yield from self._empty_rows(watermark_ns - watermark_ns % self.window_ns)

    def snapshot(self) -> bytes:
        """State for `saved`."""
        state = (self.slots.snapshot(), saved_banks(self.detectors), self._next_ns, self._empty_run, self._own_state())
        return pack(self.COMPONENT, self.FORMAT, state)

    def _empty_rows(self, until_ns: int) -> Iterator[Callable[[], list[Report]]]:
        while self._next_ns is not None and self._next_ns < until_ns and self._empty_run < MAX_EMPTY:
            yield self._judge_empty
        if self._next_ns is not None and self._next_ns < until_ns:
            self._next_ns = until_ns
            self._forget_pending()

    def _judge_empty(self) -> list[Report]:
        assert self._next_ns is not None, "there is a row to judge"
        self._empty_run += 1
        return self._judge_next(self._next_ns, None)

    def _judge_next(self, start_ns: int, window: W | None) -> list[Report]:
        self._next_ns = start_ns + self.window_ns
        return self._judge(start_ns, self._next_ns, window)

    def _more_banks(self) -> Sequence[Bank]:
        """Banks beside the detectors'; made before the slots."""
        return ()

    @abc.abstractmethod
    def _judge(self, start_ns: int, end_ns: int, window: W | None) -> list[Report]:
        """Judge one window, an empty one if there is none."""

    @abc.abstractmethod
    def _forget_pending(self) -> None:
        """Drop the windows gathered for an interval: event time has jumped."""

    @abc.abstractmethod
    def _own_state(self) -> Any:
        """State of the subclass, of type `OWN_STATE`."""

    @abc.abstractmethod
    def _restore(self, own: Any) -> None:
        """Take over what `_own_state` gave."""
