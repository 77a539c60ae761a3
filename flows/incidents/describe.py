"""What a revision of an incident says: numbers, cause, factors, contributors, sparkline, links."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from flows.incidents import explain, text
from flows.incidents.policy import Policy, severity_of
from flows.incidents.row import Row
from flows.incidents.silences import Silences
from flows.incidents.tracks import SPARKLINE_POINTS, Observation, Track
from schemas.findings import HISTORY, Findings, Report
from schemas.incident import Incident, Severity
from schemas.series import Series

FAILURES = frozenset({"error_burst", "slo_burn", "quota_saturation"})
"""Kinds that get a cause verdict."""

_SPARKLINE = {
    "cost_spike": "cost_pico", "budget_burn": "cost_pico", "error_burst": "errors", "slo_burn": "errors",
    "quota_saturation": "errors", "traffic_drop": "requests", "context_growth": "input_tokens",
    "cache_regression": "cache_read_tokens", "latency_regression": "latency_ms_p95",
}  # fmt: skip


@dataclass(slots=True)
class Open:
    """An incident that is not resolved yet."""

    incident: Incident
    series: Series
    detector: str
    opened_ns: int
    notified_ns: int
    told_impact: float
    told: bool = False
    """Whether any revision so far was for on-call to hear."""
    members: list[tuple[str, Series]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Describer:
    """Writes revisions.

    Parameters
    ----------
    policies
        By kind.
    silences
        Incidents that are recorded but not sent.
    dashboard_url, runbook_url
        Bases of links; empty leaves them out.
    """

    policies: Mapping[str, Policy]
    silences: Silences
    dashboard_url: str = ""
    runbook_url: str = ""

    def describe(
        self, home: Open, main: Track, end_ns: int, row: Row, *, state: Literal["open", "updated"], related: list[str]
    ) -> Incident:
        """The next revision of an incident.

        Parameters
        ----------
        home
            The incident so far.
        main
            Its largest abnormal track.
        end_ns, row
            The row that is judged.
        state
            What the revision says.
        related
            Incidents that are open beside it.
        """
        before = home.incident
        kind = before.kind
        found = row.find(home.detector, home.series)
        seen = Observation.of(*found) if found is not None else main.last
        if seen is None or (seen.score < self.policies[kind].close_score and main.last is not None):
            seen = main.last
        assert seen is not None  # a track that is active has seen a row
        everyone = row.members(found[1].cadence) if found is not None and kind in explain.MEASURE else {}
        impact = None if math.isnan(seen.impact_usd_per_hour) else round(seen.impact_usd_per_hour, 6)
        severity: Severity = severity_of(self.policies[kind], impact)
        cause, retry, reason = None, None, seen.detail
        factors = []
        if kind in {"cost_spike", "budget_burn"}:
            factors = explain.cost_factors(home.series, everyone)
        elif kind in FAILURES:
            factors = explain.error_factors(everyone.get(home.series))
        who = explain.contributors(kind, home.series, everyone)
        if kind in FAILURES:
            verdict, words = explain.cause_of(main.failures)
            cause, retry = verdict.label, explain.retry_helps(verdict)
            reason = f"Causes: {words}." if words else reason
        elif factors:
            cause = factors[0].name
            reason = f"{factors[0].share:.0%} of the change comes from {factors[0].name.replace('_', ' ')}."
            if explain.is_growth(home.series, factors, everyone):
                severity = "info"
                reason += " Requests grew across many keys: this looks like growth, not a fault."
        notify = not self.silences.match(kind, before.dims, end_ns)
        return Incident(
            incident_id=before.incident_id,
            revision=before.revision + 1,
            kind=kind,
            severity=severity,
            state=state,
            dims=before.dims,
            opened_at=before.opened_at,
            detected_at=before.detected_at,
            observed=_number(seen.observed),
            expected=_number(seen.expected),
            unit=seen.unit,
            score=round(seen.score, 4),
            impact_usd_per_hour=impact,
            cause=cause,
            retry_helps=retry,
            summary=text.summary(
                kind,
                before.dims,
                observed=seen.observed,
                expected=seen.expected,
                unit=seen.unit,
                impact_usd_per_hour=impact,
                reason=reason,
            ),
            contributors=who,
            factors=factors,
            sparkline=self._sparkline(home, main, found),
            related=related,
            links=text.links(
                kind,
                before.incident_id,
                before.dims,
                home.opened_ns,
                end_ns,
                dashboard=self.dashboard_url,
                runbook=self.runbook_url,
            ),
            notify=notify,
        )

    def _sparkline(self, home: Open, main: Track, found: tuple[Report, Findings, int] | None) -> list[float]:
        """The last intervals of the measure that shows the change; the detector's own values where none is kept."""
        name = _SPARKLINE.get(home.incident.kind)
        kept = found[0].history.get(found[2]) if found is not None else None
        if name is None:
            return [_number(v) for v in main.values[-SPARKLINE_POINTS:]]
        if kept is None:
            return home.incident.sparkline
        scale = 1e-12 if name == "cost_pico" else 1.0
        return [_number(float(v) * scale) for v in kept[HISTORY.index(name)] if not math.isnan(v)]


def _number(value: float) -> float:
    return 0.0 if math.isnan(value) or math.isinf(value) else round(value, 6)
