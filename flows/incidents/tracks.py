"""Tracks: the recent past of one series under one detector, with hysteresis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flows.incidents.policy import Policy
from schemas.cause import CAUSES
from schemas.findings import Findings, Report
from schemas.series import Series

SPARKLINE_POINTS = 30
NO_FAILURES: tuple[int, ...] = (0,) * len(CAUSES)


@dataclass(slots=True)
class Observation:
    """What a detector said about one series in one row."""

    start_ns: int
    end_ns: int
    score: float
    observed: float
    expected: float
    impact_usd_per_hour: float
    effect: float
    volume: float
    unit: str
    effect_unit: str
    detail: str = ""

    @staticmethod
    def of(report: Report, findings: Findings, row: int) -> Observation:
        """The named row of a finding."""
        return Observation(
            report.start_ns,
            report.end_ns,
            float(findings.score[row]),
            float(findings.observed[row]),
            float(findings.expected[row]),
            float(findings.impact_usd_per_hour[row]),
            float(findings.effect[row]),
            float(findings.volume[row]),
            findings.unit,
            findings.effect_unit,
            findings.detail[row] if findings.detail is not None else "",
        )


@dataclass(slots=True)
class Track:
    """State of one (detector, series).

    Parameters
    ----------
    bits
        The last rows, newest in the lowest bit: 1 where the row was a hit.
    below
        Rows below the closing score in succession.
    since_ns
        Start of the first hit that is still remembered.
    """

    kind: str
    detector: str
    shard: str
    series: Series
    bits: int = 0
    below: int = 0
    active: bool = False
    since_ns: int = 0
    last_hit_end_ns: int = 0
    incident_id: str | None = None
    last: Observation | None = None
    values: list[float] = field(default_factory=list)
    failures: list[int] = field(default_factory=lambda: [0] * len(CAUSES))
    """Failed requests by cause since the first hit that is still remembered."""

    def step(
        self, policy: Policy, seen: Observation | None, *, hit: bool, failures: Sequence[int] = NO_FAILURES
    ) -> None:
        """Take over one row; `seen` is None where the series is no longer watched."""
        if hit and seen is not None:
            if not self.bits and not self.active:
                self.since_ns = seen.start_ns
                self.failures = list(NO_FAILURES)
            self.last_hit_end_ns = seen.end_ns
        self.failures = [a + b for a, b in zip(self.failures, failures, strict=True)]
        self.bits = ((self.bits << 1) | hit) & ((1 << policy.open_of) - 1)
        quiet = seen is None or math.isnan(seen.score) or seen.score < policy.close_score
        self.below = self.below + 1 if quiet else 0
        if seen is not None:
            self.last = seen
            if not math.isnan(seen.observed):
                self.values = [*self.values, seen.observed][-SPARKLINE_POINTS:]
        if not self.active and self.bits.bit_count() >= policy.open_after:
            self.active = True
            self.below = 0
        elif self.active and self.below >= policy.close_after:
            self.active = False
            self.bits = 0

    @property
    def hit(self) -> bool:
        """Whether the newest row was a hit."""
        return bool(self.bits & 1)

    @property
    def forgotten(self) -> bool:
        """Nothing left to remember."""
        return not self.active and self.bits == 0


def hits(policy: Policy, report: Report, findings: Findings, cold_start_s: float) -> list[int]:
    """Rows that speak for opening an incident."""
    ok = findings.score >= policy.open_score
    if not ok.any():
        return []
    with np.errstate(invalid="ignore"):
        if policy.min_effect > 0:
            ok &= findings.effect >= policy.min_effect
        if policy.min_volume > 0:
            ok &= findings.volume >= policy.min_volume
        if policy.min_impact_usd_per_hour > 0:
            # Where no price is known, money cannot speak against an incident.
            ok &= ~(findings.impact_usd_per_hour < policy.min_impact_usd_per_hour)
    if policy.learned:
        ok &= report.age_s >= cold_start_s
    # A series of which no dimension was reported is the total (or another roll-up) once more.
    return [i for i in np.flatnonzero(ok).tolist() if not report.series[i].dims or any(report.series[i].values)]
