"""The detectors of the GPU flow: closed GPU windows in, reports for the judge out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import FloatArray
from detectors.xid import describe_xids
from flows.banks import WORTH_HISTORY, run, strange
from flows.shard_detection import NS, ShardDetection
from flows.slots import Bank
from flows.state import fingerprint
from flows.windows.gpus import gpu_features
from schemas.cause import CAUSES
from schemas.columns import IntArray
from schemas.findings import BASELINE, Findings, Report
from schemas.gpu_window import COLUMN, MAXIMA, SUMS, GpuWindows
from schemas.series import Series

LEVELS: tuple[str, ...] = (
    "gpus", "memory_used_bytes", "memory_total_bytes", "power_mw", "running_milli", "waiting_milli", "tokens_milli",
)  # fmt: skip
"""Columns that are a level in each window: averaged, not added, over an interval."""

COARSE = "gpu_util_ms"
"""GPU-milliseconds whose utilisation is only the coarse `gpu_util`."""

KIN: tuple[str, ...] = ("gpu_model", "pool", "team", "model")
"""Owner dimensions by which GPUs are rolled up."""

_LEVEL_COLUMNS = [COLUMN[name] for name in LEVELS]


class GpuDetection(ShardDetection[GpuWindows]):
    """Watches all GPUs and their roll-ups; parameters as in `ShardDetection`."""

    COMPONENT = "gpu_detection"
    FORMAT = fingerprint(1, SUMS, MAXIMA)
    OWN_STATE = tuple[IntArray, IntArray, FloatArray, FloatArray, dict[Series, dict[str, str]]]

    def _more_banks(self) -> Sequence[Bank]:
        self._kin: dict[Series, dict[str, str]] = {}
        return ()

    def _forget_pending(self) -> None:
        n = len(self.slots)
        self._sums = np.zeros((n, len(SUMS)), np.int64)
        self._seen = np.zeros(n, np.int64)
        self._maxima = np.full((n, len(MAXIMA)), np.nan)
        self._coarse_ms = np.zeros(n)

    def _own_state(self) -> Any:
        return self._sums, self._seen, self._maxima, self._coarse_ms, self._kin

    def _restore(self, own: Any) -> None:
        self._sums, self._seen, self._maxima, self._coarse_ms, self._kin = own

    def _judge(self, start_ns: int, end_ns: int, window: GpuWindows | None) -> list[Report]:
        w = window
        slots, at = np.zeros(0, np.int64), np.zeros(0, np.int64)
        xids: dict[int, tuple[int, ...]] = {}
        if w is not None:
            ids = np.array([s.identity() for s in w.series], np.uint64)
            slots, at = self.slots.admit(ids, w.series, w.column("samples"), start_ns)
            xids = {int(slot): w.xids[i] for slot, i in zip(slots.tolist(), at.tolist(), strict=True) if w.xids[i]}
            self._remember_kin(w)
        n = len(self.slots)
        sums = np.zeros((n, len(SUMS)), np.int64)
        tops = np.full((n, len(MAXIMA)), np.nan)
        coarse_ms = np.zeros(n)
        if w is not None:
            sums[slots], tops[slots] = w.sums[at], w.maxima[at]
            coarse_ms[slots] = gpu_features(w)[COARSE][at]
        self._collect(sums, tops, coarse_ms, slots)
        out = []
        findings = run(
            self.detectors, "window", _features(sums.astype(np.float64), tops, coarse_ms, self.window_ns), self.slots
        )
        _name_xids(findings, xids, self.slots.live)
        if findings:
            out.append(self._report(start_ns, end_ns, findings))
        if end_ns % self.interval_ns == 0:
            out.append(self._interval(end_ns))
            if len(self.slots.evict(end_ns - self.evict_after_ns)):
                self._forget_pending()  # slots may be fewer now; the interval has just begun
                self._kin = {s: k for s in self.slots.live_series() if (k := self._kin.get(s)) is not None}
        return out

    def _interval(self, end_ns: int) -> Report:
        mean = self._sums.astype(np.float64)
        mean[:, _LEVEL_COLUMNS] /= np.maximum(self._seen, 1)[:, None]
        x = _features(mean, self._maxima, self._coarse_ms, self.interval_ns)
        self._forget_pending()
        return self._report(end_ns - self.interval_ns, end_ns, run(self.detectors, "interval", x, self.slots))

    def _collect(self, sums: IntArray, tops: FloatArray, coarse_ms: FloatArray, slots: IntArray) -> None:
        n = len(sums)
        if len(self._sums) < n:
            more = n - len(self._sums)
            self._sums = np.concatenate([self._sums, np.zeros((more, len(SUMS)), np.int64)])
            self._seen = np.concatenate([self._seen, np.zeros(more, np.int64)])
            self._maxima = np.concatenate([self._maxima, np.full((more, len(MAXIMA)), np.nan)])
            self._coarse_ms = np.concatenate([self._coarse_ms, np.zeros(more)])
        self._sums += sums
        self._coarse_ms += coarse_ms
        self._seen[slots] += 1
        self._maxima = np.fmax(self._maxima, tops)

    def _remember_kin(self, w: GpuWindows) -> None:
        """Which roll-ups each GPU belongs to, as of its last window."""
        for i in np.flatnonzero(w.is_gpu).tolist():
            kin = {d: v for d, v in w.series[i].as_dict().items() if v}
            kin |= {d: texts[i] for d, texts in w.owners.items() if texts[i] and d in KIN}
            self._kin[w.series[i]] = kin

    def _report(self, start_ns: int, end_ns: int, findings: list[Findings]) -> Report:
        live = self.slots.live
        n = int(live.sum())
        return Report(
            shard=self.shard,
            start_ns=start_ns,
            end_ns=end_ns,
            series=self.slots.live_series(),
            age_s=(end_ns - self.slots.first_ns[live]) / NS,
            current=np.zeros((0, len(BASELINE)), np.int64),
            usual=np.zeros((0, len(BASELINE))),
            errors_by_cause=np.zeros((n, len(CAUSES)), np.int64),
            findings=findings,
            kin=dict(self._kin) if strange(findings, live, WORTH_HISTORY).any() else {},
        )


def _features(sums: FloatArray, maxima: FloatArray, coarse_ms: FloatArray, length_ns: int) -> dict[str, FloatArray]:
    x = {name: np.ascontiguousarray(sums[:, i]) for i, name in enumerate(SUMS)}
    x |= {f"{name}_max": np.ascontiguousarray(maxima[:, i]) for i, name in enumerate(MAXIMA)}
    x[COARSE] = coarse_ms
    x["window_s"] = np.full(len(sums), length_ns / NS)
    return x


def _name_xids(findings: list[Findings], xids: dict[int, tuple[int, ...]], live: npt.NDArray[np.bool_]) -> None:
    """Say which XIDs a fault consists of; detectors only see how many of each class there were."""
    if not xids:
        return
    row = {int(slot): i for i, slot in enumerate(np.flatnonzero(live))}
    for f in findings:
        if f.kind == "gpu_fault":
            f.detail = f.detail or [""] * len(f.score)
            for slot, codes in xids.items():
                f.detail[row[slot]] = describe_xids(codes)
