"""GPU windows: samples of all partitions in, closed windows with a row per GPU and per roll-up out.

The first version of a window holds what came on time. When the allowed lateness has passed, the window is accounted
once more with what came late; if that changes anything, here or in a later window, the changed rows follow as
version 2. The two accounts keep their state apart, so that neither depends on when a late sample happened to arrive.
See docs/gpus.md.
"""

from __future__ import annotations

from flows.state import fingerprint, pack, say_cold, unpack
from flows.windows.gpu_bank import GpuBank, SavedBank
from flows.windows.gpu_rollups import UNATTRIBUTED, changed_rows, gpu_features, windows_of
from flows.windows.gpu_samples import NUMBERS, GpuPartials, GpuSamples, fold_gpus
from flows.windows.gpu_states import StateRules, account
from flows.windows.watermark import AFTER_ALL, BEFORE_ALL
from schemas.errors import StateUnreadable
from schemas.gpu_window import OWNER_DIMS, GpuWindows

__all__ = ["UNATTRIBUTED", "GpuMerge", "GpuPartials", "GpuSamples", "fold_gpus", "gpu_features"]

_Samples = dict[int, list[GpuSamples]]
_Saved = tuple[int, int, int, _Samples, _Samples, _Samples, SavedBank, SavedBank, SavedBank | None, int]


class GpuMerge:
    """Closes GPU windows by watermark.

    Parameters
    ----------
    window_ns
        Length of a window.
    allowed_lateness_ns
        How long a closed window still takes late samples.
    idle_util
        Utilisation (0-1) below which a GPU that runs no request is idle.
    free_memory_share
        Used share of its memory up to which a GPU that nobody holds is free.
    max_gap_s
        A sample speaks for at most so long before it; a GPU that stops reporting is in no state after that.
    owner_expiry_s
        How long the last-known owner stands in for a missing one.
    fault_quiet_s
        How long a GPU stays unhealthy after its last hardware fault.
    evict_after_s
        A GPU without samples for so long is forgotten.
    max_gpus
        GPUs followed at most; the samples of further ones are in no window.
    saved
        What `snapshot` returned; if it cannot be read, the merge starts cold and says so in the log.
    """

    FORMAT = fingerprint(1, NUMBERS, OWNER_DIMS)

    def __init__(
        self,
        *,
        window_ns: int,
        allowed_lateness_ns: int,
        idle_util: float = 0.05,
        free_memory_share: float = 0.05,
        max_gap_s: float = 60.0,
        owner_expiry_s: float = 300.0,
        fault_quiet_s: float = 600.0,
        evict_after_s: float = 7_200.0,
        max_gpus: int = 50_000,
        saved: bytes | None = None,
    ) -> None:
        self.window_ns = window_ns
        self.allowed_lateness_ns = allowed_lateness_ns
        self.rules = StateRules(
            idle_util=idle_util,
            free_memory_share=free_memory_share,
            max_gap_ms=int(max_gap_s * 1000),
            owner_expiry_ms=int(owner_expiry_s * 1000),
            fault_quiet_ms=int(fault_quiet_s * 1000),
        )
        self._evict_ms = int(evict_after_s * 1000)
        self._max_gpus = max_gpus
        self.watermark_ns = BEFORE_ALL
        """Event time up to which every window is closed."""
        self.dropped = 0
        """Samples that came after their window's last version because their partition had been idle."""
        self._open: dict[int, list[GpuSamples]] = {}
        self._late: dict[int, list[GpuSamples]] = {}
        self._closed: dict[int, list[GpuSamples]] = {}
        """On-time samples of windows whose first version is out, until they are beyond the allowed lateness."""
        self._first = self._bank()
        """State after the newest first version: on-time samples only."""
        self._final = self._bank()
        """State after the newest window that is beyond the allowed lateness: all samples."""
        self._fork: GpuBank | None = None
        """State after that same window by its on-time samples only, where that is not the same."""
        self._compacted_ms = BEFORE_ALL
        if saved is not None:
            try:
                self.restore(saved)
            except StateUnreadable as problem:
                say_cold("gpu_merge", problem)

    def __len__(self) -> int:
        """Number of GPUs that are remembered."""
        return len(self._first)

    @property
    def turned_away(self) -> int:
        """GPUs, counted once per window, that are in no window because there are too many."""
        return self._first.turned_away

    def _bank(self) -> GpuBank:
        return GpuBank(self._evict_ms, self._max_gpus)

    def add(self, partials: GpuPartials) -> None:
        """Take over one block's samples; windows close in `advance`."""
        for start, late, samples in partials.parts:
            end = start + self.window_ns
            if end + self.allowed_lateness_ns <= self.watermark_ns:
                self.dropped += len(samples)
                continue
            waiting = self._late if late or end <= self.watermark_ns else self._open
            waiting.setdefault(start, []).append(samples)

    def advance(self, watermark_ns: int) -> list[GpuWindows]:
        """Windows that the watermark has passed, in order of their start; then second versions."""
        self.watermark_ns = max(self.watermark_ns, watermark_ns)
        if self.watermark_ns == BEFORE_ALL:
            return []
        out = []
        for start in sorted(s for s in self._open if s + self.window_ns <= self.watermark_ns):
            parts = self._open.pop(start)
            self._closed[start] = parts
            first = self._windows(start, parts, self._first, 1)
            if first is not None:
                out.append(first)
        limit = self.watermark_ns - self.window_ns - self.allowed_lateness_ns
        for start in sorted(s for s in {**self._closed, **self._late} if s <= limit):
            second = self._finish(start)
            if second is not None:
                out.append(second)
        if out:
            self._compact(min(self._closed, default=out[0].start_ns) // 1_000_000)
        return out

    def flush(self) -> list[GpuWindows]:
        """Close everything: there is no more input."""
        return self.advance(AFTER_ALL)

    def _windows(self, start: int, parts: list[GpuSamples], bank: GpuBank, version: int) -> GpuWindows | None:
        rows = account(parts, bank, self.rules, start_ns=start, window_ns=self.window_ns)
        if rows is None:
            return None
        return windows_of(rows, start_ns=start, window_ns=self.window_ns, version=version)

    def _finish(self, start: int) -> GpuWindows | None:
        """Account a window for the last time; what changed since its first version is its second one."""
        parts, late = self._closed.pop(start, []), self._late.pop(start, [])
        if not late and self._fork is None:
            account(parts, self._final, self.rules, start_ns=start, window_ns=self.window_ns)
            return None
        if self._fork is None:
            self._fork = self._final.copy()
        old = self._windows(start, parts, self._fork, 1) if parts else None
        new = self._windows(start, parts + late, self._final, 2)
        if self._fork.knows_the_same(self._final):
            self._fork = None
        return None if new is None else changed_rows(old, new)

    def _compact(self, start_ms: int) -> None:
        """Drop GPUs that have been silent for long; `start_ms` is the oldest window still to be accounted."""
        if start_ms < self._compacted_ms + self._evict_ms // 4:
            return
        self._compacted_ms = start_ms
        for bank in (self._first, self._final, self._fork):
            if bank is not None:
                bank.compact(start_ms)

    # ------------------------------------------------------------------ state
    def snapshot(self) -> bytes:
        """State for `saved` and `restore`."""
        # An empty bank is falsy, so the question is whether there is one.
        fork = None if self._fork is None else self._fork.snapshot()
        state: _Saved = (
            self.window_ns, self.watermark_ns, self.dropped, self._open, self._late, self._closed,
            self._first.snapshot(), self._final.snapshot(), fork, self._compacted_ms,
        )  # fmt: skip
        return pack("gpu_merge", self.FORMAT, state)

    def restore(self, saved: bytes) -> None:
        """Take over a snapshot.

        Raises
        ------
        StateUnreadable
            Truncated, foreign, of another format, or taken with another window length.
        """
        state = unpack("gpu_merge", self.FORMAT, saved, _Saved)
        if state[0] != self.window_ns:
            raise StateUnreadable(
                f"gpu_merge: saved with windows of {state[0] / 1e9:g} s, now they are {self.window_ns / 1e9:g} s"
            )
        (
            _, self.watermark_ns, self.dropped, self._open, self._late, self._closed, first, final, fork,
            self._compacted_ms,
        ) = state  # fmt: skip
        self._first.restore(first)
        self._final.restore(final)
        self._fork = None if fork is None else self._bank()
        if self._fork is not None:
            self._fork.restore(fork)
