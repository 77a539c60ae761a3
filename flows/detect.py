"""The detectors of one shard of requests: closed windows in, reports for the judge out.

Every live series has a slot; every detector is a bank over all slots. A row is scored first and learned afterwards.
Detectors of cadence `window` see every window, those of cadence `interval` see sums over the detection interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import FloatArray
from detectors.baseline import Baseline
from flows.banks import FREEZE_SCORE, WORTH_HISTORY, run, strange
from flows.shard_detection import NS, ShardDetection
from flows.slots import Bank, History
from flows.state import fingerprint
from flows.windows.partials import Rows, merge_rows, take_rows
from schemas.findings import BASELINE, HISTORY, HISTORY_LENGTH, Findings, Report
from schemas.request_window import COLUMN, ERROR_SUMS, QUANTILES, SKETCHES, SUMS, RequestWindows
from schemas.sketch import quantiles

_BASELINE_COLUMNS = [COLUMN[name] for name in BASELINE]
_ERROR_COLUMNS = slice(COLUMN[ERROR_SUMS[0]], COLUMN[ERROR_SUMS[-1]] + 1)

Ints = npt.NDArray[np.int64]


class RequestDetection(ShardDetection[RequestWindows]):
    """Watches the request series of one shard; parameters as in `ShardDetection`."""

    COMPONENT = "request_detection"
    FORMAT = fingerprint(1, SUMS, SKETCHES, BASELINE, HISTORY, HISTORY_LENGTH)
    OWN_STATE = tuple[dict[str, FloatArray], npt.NDArray[np.float32], list[Rows]]

    def _more_banks(self) -> Sequence[Bank]:
        self.baseline = Baseline()
        self.history = History(len(HISTORY), HISTORY_LENGTH)
        return self.baseline, self.history

    def _forget_pending(self) -> None:
        self._pending: list[Rows] = []

    def _own_state(self) -> Any:
        return self.baseline.state, self.history.values, self._pending

    def _restore(self, own: Any) -> None:
        self.baseline.state, self.history.values, self._pending = own

    def _judge(self, start_ns: int, end_ns: int, window: RequestWindows | None) -> list[Report]:
        rows, quantile = Rows.empty(), {}
        if window is not None:
            rows, quantile = Rows(window.ids, window.series, window.sums, window.sketches), window.quantiles
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
