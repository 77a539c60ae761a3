"""Incidents: what on-call hears about. One cause is one incident, and it explains itself."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

KINDS: tuple[str, ...] = (
    "cost_spike", "budget_burn", "error_burst", "slo_burn", "latency_regression", "gpu_saturation",
    "engine_saturation", "quota_saturation", "gpu_idle", "gpu_fault", "cache_regression", "context_growth",
    "traffic_drop", "unpriced_model", "data_quality", "pipeline_health",
)  # fmt: skip
"""Every kind of incident. A contract: extend it, do not rename."""

SEVERITIES: tuple[str, ...] = ("info", "warning", "error", "critical")
"""From least to most severe."""

Severity = Literal["info", "warning", "error", "critical"]
State = Literal["open", "updated", "resolved"]


class Contributor(Struct, frozen=True, kw_only=True):
    """A member series that carries part of the change."""

    dims: dict[str, str]
    share: float
    """Part of the whole change, 1.0 is all of it; negative where the member moved the other way."""
    observed: float
    expected: float


class Factor(Struct, frozen=True, kw_only=True):
    """A factor of the change; the shares of all factors add up to 1."""

    name: str
    share: float


class Incident(Struct, frozen=True, kw_only=True):
    """One revision of one incident. Times are RFC 3339 UTC in event time."""

    incident_id: str
    """Deterministic: from kind, series and opening window."""
    revision: int
    """Counts from 1; the same revision always has the same content."""
    kind: str
    severity: Severity
    state: State
    dims: dict[str, str]
    opened_at: str
    """Start of the first window that was abnormal."""
    detected_at: str
    """End of the window that opened it."""
    resolved_at: str | None = None
    observed: float
    expected: float
    unit: str
    score: float
    """0-1: every 0.1 is a factor of ten less likely under normal behaviour (see `detectors.tail`)."""
    impact_usd_per_hour: float | None = None
    cause: str | None = None
    retry_helps: bool | None = None
    summary: str
    """What, where, how much, since when and why, in one or two sentences; plain text."""
    contributors: list[Contributor] = field(default_factory=list)
    factors: list[Factor] = field(default_factory=list)
    sparkline: list[float] = field(default_factory=list)
    """Observed values of the last windows, oldest first."""
    related: list[str] = field(default_factory=list)
    """Incidents that were open at the same time on the same model, team or node."""
    links: dict[str, str] = field(default_factory=dict)
    """`dashboard`, `runbook`."""
    notify: bool = True
    """False for revisions that are recorded but not sent (small updates, silences, maintenance)."""
