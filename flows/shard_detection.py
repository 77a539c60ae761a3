"""What watching requests and watching GPUs have in common: rows in order, empty ones included, slots and state."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from flows.banks import MAX_EMPTY, Plan, SavedBanks, restore_banks, saved_banks
from flows.slots import Bank, SavedSlots, Slots
from flows.state import pack, unpack_or_cold
from schemas.findings import Progress, Report

NS = 1_000_000_000


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

    def progress(self, shard: str, windows: Sequence[W], watermark_ns: int) -> Progress:
        """`on_windows`, with what the judge and the metrics want to know beside the reports."""
        reports = self.on_windows(shard, windows, watermark_ns)
        return Progress(shard, watermark_ns, reports, self.slots.evicted, self.slots.unwatched)

    def on_windows(self, shard: str, windows: Sequence[W], watermark_ns: int) -> list[Report]:
        """Judge the first versions of closed windows, and the empty ones between them up to the watermark.

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
        out: list[Report] = []
        for w in windows:
            if w.version == 1:
                out += self._pass_empty(w.start_ns)
                out += self._judge_next(w.start_ns, w)
                self._empty_run = 0
        if watermark_ns < 2**61:  # at the end of the input there is no "up to"
            out += self._pass_empty(watermark_ns - watermark_ns % self.window_ns)
        return out

    def snapshot(self) -> bytes:
        """State for `saved`."""
        state = (self.slots.snapshot(), saved_banks(self.detectors), self._next_ns, self._empty_run, self._own_state())
        return pack(self.COMPONENT, self.FORMAT, state)

    def _pass_empty(self, until_ns: int) -> list[Report]:
        out: list[Report] = []
        if self._next_ns is None:
            return out
        while self._next_ns < until_ns and self._empty_run < MAX_EMPTY:
            self._empty_run += 1
            out += self._judge_next(self._next_ns, None)
        if self._next_ns < until_ns:
            self._next_ns = until_ns
            self._forget_pending()
        return out

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
