"""The detectors of one shard: closed windows in, reports for the judge out.

Every live series has a slot; every detector is a bank over all slots. A row is scored first and learned afterwards.
Detectors of cadence `window` see every window, those of cadence `interval` see sums over the detection interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from detectors.baseline import Baseline

from detectors.base import Detector, FloatArray
from flows.state import pack, unpack_or_cold
from flows.windows.partials import Rows, merge_rows, take_rows
from schemas.findings import BASELINE, HISTORY, HISTORY_LENGTH, Findings, Report
from schemas.request_window import COLUMN, ERROR_SUMS, QUANTILES, SKETCHES, SUMS, RequestWindows
from schemas.series import Series
from schemas.sketch import quantiles

NS = 1_000_000_000
_FREEZE_SCORE = 0.5
"""A slot whose score reaches this (one in 100,000 rows) is not learned as normal for that row."""
_MAX_EMPTY = 360
"""Windows without any request that are still judged in succession; a longer silence of everything is a gap of
collection and teaches nothing."""
_WORTH_HISTORY = 0.3

_BASELINE_COLUMNS = [COLUMN[name] for name in BASELINE]
_ERROR_COLUMNS = slice(COLUMN[ERROR_SUMS[0]], COLUMN[ERROR_SUMS[-1]] + 1)


@dataclass(slots=True)
class Plan:
    """What a shard watches with.

    Parameters
    ----------
    detectors
        Factories by name, in fixed order; called once per shard.
    on_new_series
        Called with the new slots' series for every detector, so that objectives and budgets reach their series.
    """

    detectors: Mapping[str, Callable[[], Detector]]
    on_new_series: Callable[[Detector, int, Series], None]


class RequestDetection:
    """Watches the request series of one shard.

    Parameters
    ----------
    shard
        Name of the shard, as the judge knows it.
    plan
        Detectors to run.
    window_ns, interval_ns
        Length of a window and of the detection interval (a multiple of it).
    max_series
        Series watched at most; further ones are written, but not watched, and counted in `unwatched`.
    evict_after_ns
        A series without requests for so long is forgotten.
    saved
        What `snapshot` returned.
    """

    FORMAT = 1

    def __init__(
        self,
        shard: str,
        plan: Plan,
        *,
        window_ns: int,
        interval_ns: int,
        max_series: int,
        evict_after_ns: int,
        saved: bytes | None = None,
    ) -> None:
        self.shard = shard
        self.plan = plan
        self.window_ns = window_ns
        self.interval_ns = max(interval_ns - interval_ns % window_ns, window_ns)
        self.max_series = max_series
        self.evict_after_ns = evict_after_ns
        self.evicted = 0
        self.unwatched = 0
        self._detectors = {name: make() for name, make in plan.detectors.items()}
        self._baseline = Baseline()
        self._series: list[Series | None] = []
        self._slot: dict[int, int] = {}
        self._ids = np.zeros(0, np.uint64)
        self._first_ns = np.zeros(0, np.int64)
        self._last_ns = np.zeros(0, np.int64)
        self._history = np.zeros((0, len(HISTORY), HISTORY_LENGTH), np.float32)
        self._next_ns: int | None = None
        self._empty_run = 0
        self._pending: list[Rows] = []
        self._grow(64)
        state = unpack_or_cold("request_detection", self.FORMAT, saved)
        if state is not None:
            self._restore(state)

    # ------------------------------------------------------------------ stream
    def on_windows(self, windows: Sequence[RequestWindows], watermark_ns: int) -> list[Report]:
        """Judge the first versions of closed windows, and the empty ones between them up to the watermark."""
        out: list[Report] = []
        for w in windows:
            if w.version != 1:
                continue
            out += self._pass_empty(w.start_ns)
            out += self._judge(w.start_ns, Rows(w.ids, w.series, w.sums, w.sketches), w)
            self._empty_run = 0
        if self._next_ns is not None and watermark_ns < 2**61:
            out += self._pass_empty(watermark_ns - watermark_ns % self.window_ns)
        return out

    def _pass_empty(self, until_ns: int) -> list[Report]:
        out: list[Report] = []
        while self._next_ns is not None and self._next_ns < until_ns and self._empty_run < _MAX_EMPTY:
            self._empty_run += 1
            out += self._judge(self._next_ns, Rows.empty(), None)
        if self._next_ns is not None and self._next_ns < until_ns:
            self._next_ns = until_ns
            self._pending.clear()
        return out

    def _judge(self, start_ns: int, rows: Rows, windows: RequestWindows | None) -> list[Report]:
        end_ns = start_ns + self.window_ns
        self._next_ns = end_ns
        slots, rows_at = self._admit(rows, start_ns)
        n = len(self._ids)
        quantile = {name: windows.quantiles[name] for name in SKETCHES} if windows is not None else {}
        out = []
        x = self._features(rows.sums, quantile, slots, rows_at, self.window_ns)
        findings = self._run("window", x)
        if findings:
            out.append(self._report(start_ns, end_ns, _dense(rows.sums, slots, rows_at, n), findings, learn=False))
        self._pending.append(take_rows(rows, rows_at) if len(rows_at) != len(rows.ids) else rows)
        if end_ns % self.interval_ns == 0:
            out.append(self._interval(end_ns))
            self._evict(end_ns)
        return out

    def _interval(self, end_ns: int) -> Report:
        rows = merge_rows(self._pending)
        self._pending.clear()
        slots = np.array([self._slot[i] for i in rows.ids.tolist()], np.int64)
        at = np.arange(len(slots))
        quantile = {
            name: quantiles(s.rows, s.buckets, s.counts, len(slots), QUANTILES) for name, s in rows.sketches.items()
        }
        x = self._features(rows.sums, quantile, slots, at, self.interval_ns)
        sums = _dense(rows.sums, slots, at, len(self._ids))
        self._remember(x)
        findings = self._run("interval", x)
        return self._report(end_ns - self.interval_ns, end_ns, sums, findings, learn=True)

    # ------------------------------------------------------------------ judging
    def _run(self, cadence: str, x: Mapping[str, FloatArray]) -> list[Findings]:
        out = []
        for name, detector in self._detectors.items():
            if detector.cadence != cadence:
                continue
            j = detector.score_many(x)
            score = np.where(self._live, j.score, 0.0)
            detector.learn_many(x, score >= _FREEZE_SCORE)
            live = self._live
            out.append(
                Findings(
                    detector.kind,
                    name,
                    detector.unit,
                    detector.effect_unit,
                    cadence,
                    score[live],
                    j.observed[live],
                    j.expected[live],
                    j.impact_usd_per_hour[live],
                    j.effect[live],
                    j.volume[live],
                    None if j.detail is None else [d for d, keep in zip(j.detail, live.tolist(), strict=True) if keep],
                )  # fmt: skip
            )
        return out

    def _report(
        self, start_ns: int, end_ns: int, sums: npt.NDArray[np.int64], findings: list[Findings], *, learn: bool
    ) -> Report:
        live = self._live
        current = sums[:, _BASELINE_COLUMNS]
        usual = self._baseline.usual((end_ns - start_ns) / NS)
        if learn:
            strange = np.zeros(len(live), np.bool_)
            for f in findings:
                strange[live] |= f.score >= _FREEZE_SCORE
            self._baseline.learn(current.astype(np.float64), (end_ns - start_ns) / NS, strange)
        worth = np.zeros(int(live.sum()), np.bool_)
        for f in findings:
            worth |= f.score >= _WORTH_HISTORY
        where = np.flatnonzero(live)
        return Report(
            shard=self.shard,
            start_ns=start_ns,
            end_ns=end_ns,
            series=[s for s in self._series if s is not None],
            age_s=(end_ns - self._first_ns[live]) / NS,
            current=current[live],
            usual=usual[live],
            errors_by_cause=sums[live, _ERROR_COLUMNS],
            findings=findings,
            history={i: self._history[where[i]].copy() for i in np.flatnonzero(worth).tolist()},
        )

    def _features(
        self,
        sums: npt.NDArray[np.int64],
        quantile: Mapping[str, npt.NDArray[np.float64]],
        slots: npt.NDArray[np.int64],
        rows_at: npt.NDArray[np.int64],
        length_ns: int,
    ) -> dict[str, FloatArray]:
        n = len(self._ids)
        dense = _dense(sums, slots, rows_at, n)
        x: dict[str, FloatArray] = {name: dense[:, i].astype(np.float64) for i, name in enumerate(SUMS)}
        for name in SKETCHES:
            for i, q in enumerate(QUANTILES):
                column = np.full(n, np.nan)
                if name in quantile:
                    column[slots] = quantile[name][rows_at, i]
                x[f"{name}_p{round(q * 100)}"] = column
        x["window_s"] = np.full(n, length_ns / NS)
        return x

    def _remember(self, x: Mapping[str, FloatArray]) -> None:
        self._history[:, :, :-1] = self._history[:, :, 1:]
        for i, name in enumerate(HISTORY):
            self._history[:, i, -1] = x[name]

    # ------------------------------------------------------------------ slots
    @property
    def _live(self) -> npt.NDArray[np.bool_]:
        return self._first_ns >= 0

    def _admit(self, rows: Rows, start_ns: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Slots of the rows that are watched, and those rows' numbers; busiest new series first."""
        ids = rows.ids.tolist()
        new = [i for i, identity in enumerate(ids) if identity not in self._slot]
        new.sort(key=lambda i: (-int(rows.sums[i, COLUMN["requests"]]), ids[i]))
        for i in new:
            if len(self._slot) >= self.max_series:
                self.unwatched += 1
                continue
            slot = next(self._free, None)
            if slot is None:
                self._grow(2 * len(self._ids))
                slot = next(self._free)
            self._slot[ids[i]] = slot
            self._series[slot] = rows.series[i]
            self._ids[slot] = ids[i]
            self._first_ns[slot] = start_ns
            for detector in self._detectors.values():
                self.plan.on_new_series(detector, slot, rows.series[i])
        at = [i for i, identity in enumerate(ids) if identity in self._slot]
        slots = np.array([self._slot[ids[i]] for i in at], np.int64)
        self._last_ns[slots] = start_ns
        return slots, np.array(at, np.int64)

    def _grow(self, n: int) -> None:
        old = len(self._ids)
        self._series += [None] * (n - old)
        self._ids = np.concatenate([self._ids, np.zeros(n - old, np.uint64)])
        self._first_ns = np.concatenate([self._first_ns, np.full(n - old, -1, np.int64)])
        self._last_ns = np.concatenate([self._last_ns, np.full(n - old, -1, np.int64)])
        empty = np.full((n - old, len(HISTORY), HISTORY_LENGTH), np.nan, np.float32)
        self._history = np.concatenate([self._history, empty])
        for bank in (*self._detectors.values(), self._baseline):
            bank.resize(n)
        self._free = iter([i for i, s in enumerate(self._series) if s is None])

    def _evict(self, now_ns: int) -> None:
        gone = np.flatnonzero(self._live & (self._last_ns < now_ns - self.evict_after_ns))
        if len(gone) == 0:
            return
        self.evicted += len(gone)
        for slot in gone.tolist():
            del self._slot[int(self._ids[slot])]
            self._series[slot] = None
        self._first_ns[gone] = -1
        self._last_ns[gone] = -1
        self._ids[gone] = 0
        self._history[gone] = np.nan
        for bank in (*self._detectors.values(), self._baseline):
            bank.forget(gone)
        self._free = iter([i for i, s in enumerate(self._series) if s is None])

    # ------------------------------------------------------------------ state
    def snapshot(self) -> bytes:
        """State for `saved`."""
        banks = {name: (type(d).__name__, d.state) for name, d in self._detectors.items()}
        state = (
            banks, self._baseline.state, self._series, self._ids, self._first_ns, self._last_ns, self._history,
            self._next_ns, self._empty_run, self._pending, self.evicted, self.unwatched,
        )  # fmt: skip
        return pack("request_detection", self.FORMAT, state)

    def _restore(self, state: tuple) -> None:  # type: ignore[type-arg]
        (
            banks, baseline, self._series, self._ids, self._first_ns, self._last_ns, self._history,
            self._next_ns, self._empty_run, self._pending, self.evicted, self.unwatched,
        ) = state  # fmt: skip
        n = len(self._ids)
        for name, detector in self._detectors.items():
            detector.resize(n)
            kind, values = banks.get(name, ("", None))
            if kind == type(detector).__name__ and set(values) == set(detector.state):
                detector.state = values
        self._baseline.state = baseline
        self._slot = {int(self._ids[i]): i for i, s in enumerate(self._series) if s is not None}
        self._free = iter([i for i, s in enumerate(self._series) if s is None])


def _dense(
    sums: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], rows_at: npt.NDArray[np.int64], n: int
) -> npt.NDArray[np.int64]:
    out = np.zeros((n, sums.shape[1]), np.int64)
    out[slots] = sums[rows_at]
    return out
