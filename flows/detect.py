"""The detectors of one shard of requests: closed windows in, reports for the judge out.

Every live series has a slot; every detector is a bank over all slots. A row is scored first and learned afterwards.
Detectors of cadence `window` see every window, those of cadence `interval` see sums over the detection interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from detectors.base import FloatArray
from detectors.baseline import Baseline
from flows.banks import FREEZE_SCORE, MAX_EMPTY, WORTH_HISTORY, Plan, restore_banks, run, saved_banks, strange
from flows.slots import History, Slots
from flows.state import pack, unpack_or_cold
from flows.windows.partials import Rows, merge_rows, take_rows
from schemas.findings import BASELINE, HISTORY, HISTORY_LENGTH, Findings, Report
from schemas.request_window import COLUMN, ERROR_SUMS, QUANTILES, SKETCHES, SUMS, RequestWindows
from schemas.sketch import quantiles

NS = 1_000_000_000

_BASELINE_COLUMNS = [COLUMN[name] for name in BASELINE]
_ERROR_COLUMNS = slice(COLUMN[ERROR_SUMS[0]], COLUMN[ERROR_SUMS[-1]] + 1)

Ints = npt.NDArray[np.int64]


class RequestDetection:
    """Watches the request series of one shard.

    Parameters
    ----------
    plan
        Detectors to run.
    window_ns, interval_ns
        Length of a window and of the detection interval (cut to a multiple of it).
    max_series
        Series watched at most.
    evict_after_ns
        A series without requests for so long is forgotten.
    saved
        What `snapshot` returned.
    """

    FORMAT = 1

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
        self.baseline = Baseline()
        self.history = History(len(HISTORY), HISTORY_LENGTH)
        self.slots = Slots(
            [*self.detectors.values(), self.baseline, self.history],
            max_series=max_series,
            on_new=plan.greeter(self.detectors),
        )
        self._next_ns: int | None = None
        self._empty_run = 0
        self._pending: list[Rows] = []
        state = unpack_or_cold("request_detection", self.FORMAT, saved)
        if state is not None:
            slots, banks, baseline, history, self._next_ns, self._empty_run, self._pending = state
            self.slots.restore(slots)
            restore_banks(self.detectors, banks)
            self.baseline.state, self.history.values = baseline, history

    def on_windows(self, shard: str, windows: Sequence[RequestWindows], watermark_ns: int) -> list[Report]:
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
                out += self._judge(w.start_ns, Rows(w.ids, w.series, w.sums, w.sketches), w.quantiles)
                self._empty_run = 0
        if watermark_ns < 2**61:  # at the end of the input there is no "up to"
            out += self._pass_empty(watermark_ns - watermark_ns % self.window_ns)
        return out

    def snapshot(self) -> bytes:
        """State for `saved`."""
        state = (
            self.slots.snapshot(), saved_banks(self.detectors), self.baseline.state, self.history.values,
            self._next_ns, self._empty_run, self._pending,
        )  # fmt: skip
        return pack("request_detection", self.FORMAT, state)

    # ------------------------------------------------------------------ rows
    def _pass_empty(self, until_ns: int) -> list[Report]:
        out: list[Report] = []
        if self._next_ns is None:
            return out
        while self._next_ns < until_ns and self._empty_run < MAX_EMPTY:
            self._empty_run += 1
            out += self._judge(self._next_ns, Rows.empty(), {})
        if self._next_ns < until_ns:
            self._next_ns = until_ns
            self._pending.clear()
        return out

    def _judge(self, start_ns: int, rows: Rows, quantile: Mapping[str, npt.NDArray[np.float64]]) -> list[Report]:
        end_ns = self._next_ns = start_ns + self.window_ns
        slots, at = self.slots.admit(rows.ids, rows.series, rows.sums[:, COLUMN["requests"]], start_ns)
        x, sums = self._features(rows.sums[at], {k: v[at] for k, v in quantile.items()}, slots, self.window_ns)
        out = []
        findings = run(self.detectors, "window", x, self.slots)
        if findings:
            out.append(self._report(start_ns, end_ns, sums, findings))
        if len(rows.ids):
            self._pending.append(rows if len(at) == len(rows.ids) else take_rows(rows, at))
        if end_ns % self.interval_ns == 0:
            out.append(self._interval(end_ns))
            self.slots.evict(end_ns - self.evict_after_ns)
        return out

    def _interval(self, end_ns: int) -> Report:
        rows = merge_rows(self._pending)
        self._pending.clear()
        slots = self.slots.find(rows.ids)
        quantile = {
            name: quantiles(s.rows, s.buckets, s.counts, len(slots), QUANTILES) for name, s in rows.sketches.items()
        }
        x, sums = self._features(rows.sums, quantile, slots, self.interval_ns)
        self.history.push([x[name] for name in HISTORY])
        findings = run(self.detectors, "interval", x, self.slots)
        report = self._report(end_ns - self.interval_ns, end_ns, sums, findings)
        frozen = strange(findings, self.slots.live, FREEZE_SCORE)
        self.baseline.learn(sums[:, _BASELINE_COLUMNS].astype(np.float64), self.interval_ns / NS, frozen)
        return report

    def _report(self, start_ns: int, end_ns: int, sums: Ints, findings: list[Findings]) -> Report:
        live = self.slots.live
        worth = np.flatnonzero(strange(findings, live, WORTH_HISTORY)[live]).tolist()
        where = np.flatnonzero(live)
        return Report(
            shard=self.shard,
            start_ns=start_ns,
            end_ns=end_ns,
            series=self.slots.live_series(),
            age_s=(end_ns - self.slots.first_ns[live]) / NS,
            current=sums[live][:, _BASELINE_COLUMNS],
            usual=self.baseline.usual((end_ns - start_ns) / NS)[live],
            errors_by_cause=sums[live, _ERROR_COLUMNS],
            findings=findings,
            history={i: self.history.values[where[i]].copy() for i in worth},
        )

    def _features(
        self, rows: Ints, quantile: Mapping[str, npt.NDArray[np.float64]], slots: Ints, length_ns: int
    ) -> tuple[dict[str, FloatArray], Ints]:
        """Features of every slot, and the sums they come from; slots without a row are zero, quantiles NaN."""
        n = len(self.slots)
        sums = np.zeros((n, len(SUMS)), np.int64)
        sums[slots] = rows
        as_float = sums.T.astype(np.float64)
        x: dict[str, FloatArray] = {name: as_float[i] for i, name in enumerate(SUMS)}
        for name in SKETCHES:
            for i, q in enumerate(QUANTILES):
                column = np.full(n, np.nan)
                if name in quantile:
                    column[slots] = quantile[name][:, i]
                x[f"{name}_p{round(q * 100)}"] = column
        x["window_s"] = np.full(n, length_ns / NS)
        return x, sums
