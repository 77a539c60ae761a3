"""Watching Tidegauge itself: the source's beats in, `pipeline_health` incidents out.

This is the one judgement in real time: its rows are stretches of the clock, and it has a judge of its own, so that a
flow that is behind can still say so. A replay has no beats and therefore no such incidents.

What the clock decides comes out differently when it is decided again. So nothing leaves before it is part of the saved
state: a revision judged in one epoch is handed on in the next, and a crash between makes it neither lost nor another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from detectors.pipeline_health import PipelineHealth
from flows.incidents.judge import Judge
from flows.incidents.policy import Policy
from flows.incidents.silences import Silences
from flows.sources.item import Item
from flows.state import pack, unpack_or_cold
from schemas.cause import CAUSES
from schemas.findings import BASELINE, Findings, Progress, Report
from schemas.incident import Incident
from schemas.series import Series

NS = 1_000_000_000
ROW_NS = 10 * NS
GIVEN_UP_NS = 600 * NS
"""How long a delivery that was given up counts as trouble."""

LOST_NS = 600 * NS
"""How long messages that were lost count as trouble."""

PIPELINE = "pipeline"
SERIES = Series(PIPELINE, (), ())

Pressure = Callable[[], Mapping[str, float]]
"""What the outputs are under: `spool_share`, `outbox_age_s`, `given_up`; and `unread_partitions`."""

Troubled = Callable[[], Sequence[str]]
"""Names of the receivers that do not take what waits for them."""


def nobody() -> Sequence[str]:
    """All receivers are well."""
    return ()


def no_pressure() -> Mapping[str, float]:
    """Outputs without any trouble."""
    return {}


_Saved = tuple[
    bytes,
    int | None,
    dict[str, int],
    dict[str, int],
    list[Incident],
    tuple[float, int | None] | None,
    dict[str, tuple[int, int]],
]


class PipelineWatch:
    """Judges every ten seconds of the clock.

    Parameters
    ----------
    policies
        Of all kinds.
    pressure
        Asked once per row.
    troubled
        Asked where receivers are the trouble.
    silences, runbook_url
        As for the other incidents.
    saved
        What `snapshot` returned.
    """

    FORMAT = 3

    def __init__(
        self,
        policies: Mapping[str, Policy],
        *,
        pressure: Pressure = no_pressure,
        troubled: Troubled = nobody,
        silences: Silences | None = None,
        runbook_url: str = "",
        parameters: Mapping[str, Any] | None = None,
        saved: bytes | None = None,
    ) -> None:
        self.pressure, self.troubled = pressure, troubled
        self.detector = PipelineHealth(**(parameters or {}))
        self._given_up: tuple[float, int | None] | None
        """Deliveries given up so far, and when the last was added."""
        state = unpack_or_cold("pipeline_watch", self.FORMAT, saved, _Saved)
        self._lost: dict[str, tuple[int, int]]
        """By partition: messages lost in the trouble of now, and when the last was."""
        judged, self._row_ns, self._event_ns, self._lag, self._saved, self._given_up, self._lost = (
            state if state is not None else (None, None, {}, {}, [], None, {})
        )
        self._fresh: list[Incident] = []
        """Revisions that no saved state holds yet."""
        self.judge = Judge([PIPELINE], policies, silences=silences, runbook_url=runbook_url, saved=judged)

    def on_item(self, item: Item[Any]) -> list[Incident]:
        """Take over one beat of one partition; returns revisions that an earlier epoch has decided."""
        out: list[Incident] = self._saved
        self._saved = []
        self._observe(item)
        return out

    def snapshot(self) -> bytes:
        """State for `saved`; what it holds may leave from now on."""
        self._saved += self._fresh
        self._fresh = []
        return pack(
            "pipeline_watch",
            self.FORMAT,
            (
                self.judge.snapshot(), self._row_ns, self._event_ns, self._lag, self._saved, self._given_up, self._lost
            ),
        )  # fmt: skip

    def _observe(self, item: Item[Any]) -> None:
        if item.read_at_ns is None:
            return
        if item.idle:
            self._event_ns.pop(item.partition, None)
        else:
            self._event_ns[item.partition] = item.watermark_ns
        if item.lag is not None:
            self._lag[item.partition] = item.lag
        if item.lost:
            before, _ = self._lost.get(item.partition, (0, 0))
            self._lost[item.partition] = before + item.lost, item.read_at_ns
        row_ns = item.read_at_ns // ROW_NS * ROW_NS
        if self._row_ns is None:
            self._row_ns = row_ns
        if row_ns > self._row_ns:
            self._row_ns = row_ns
            self._fresh += self._judge(row_ns, item.read_at_ns)

    def _newly_given_up(self, total: float, row_ns: int) -> float:
        """Deliveries given up within the last minutes: what was given up long ago is no trouble of now."""
        if self._given_up is None:
            self._given_up = (total, None)
        known, since_ns = self._given_up
        if total > known:
            since_ns = row_ns
        self._given_up = (total, since_ns)
        return 1.0 if since_ns is not None and row_ns - since_ns < GIVEN_UP_NS else 0.0

    def _said_of_loss(self) -> str:
        lost = ", ".join(f"{n:,} of {partition}" for partition, (n, _) in sorted(self._lost.items())[:5])
        return f"Messages lost: {lost}." if lost else ""

    def _with_names(self, detail: str) -> str:
        """On-call must know which receiver to look at."""
        names = ", ".join(self.troubled()) if "receiver" in detail else ""
        return f"{detail.removesuffix('.')}: {names}." if names else detail

    def _judge(self, row_ns: int, now_ns: int) -> list[Incident]:
        slowest = min((at for at in self._event_ns.values() if at > 0), default=now_ns)
        pressure = self.pressure()
        x = {name: np.array([float(pressure.get(name, 0.0))]) for name in self.detector.features}
        x["given_up"] = np.array([self._newly_given_up(float(pressure.get("given_up", 0.0)), row_ns)])
        x["delay_s"] = np.array([max(now_ns - slowest, 0) / NS])
        x["lag_messages"] = np.array([float(sum(self._lag.values()))])
        self._lost = {p: (n, at) for p, (n, at) in self._lost.items() if row_ns - at < LOST_NS}
        x["lost_messages"] = np.array([float(sum(n for n, _ in self._lost.values()))])
        x["window_s"] = np.array([ROW_NS / NS])
        j = self.detector.score_many(x)
        findings = Findings(
            kind=self.detector.kind,
            detector=self.detector.kind,
            unit=self.detector.unit,
            effect_unit=self.detector.effect_unit,
            cadence="window",
            score=j.score,
            observed=j.observed,
            expected=j.expected,
            impact_usd_per_hour=j.impact_usd_per_hour,
            effect=j.effect,
            volume=j.volume,
            detail=[" ".join(filter(None, (*map(self._with_names, j.detail or ()), self._said_of_loss())))],
        )
        report = Report(
            shard=PIPELINE,
            start_ns=row_ns - ROW_NS,
            end_ns=row_ns,
            series=[SERIES],
            age_s=np.array([np.inf]),
            current=np.zeros((0, len(BASELINE)), np.int64),
            usual=np.zeros((0, len(BASELINE))),
            errors_by_cause=np.zeros((1, len(CAUSES)), np.int64),
            findings=[findings],
        )
        return self.judge.on_progress(Progress(PIPELINE, row_ns, [report]))
