"""When findings of a kind become an incident: the defaults of every kind, and the operator's changes to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from flows.settings import KindPolicy
from schemas.incident import KINDS, Severity


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules for one kind of incident. Rows are windows or detection intervals, whatever the detector sees.

    Parameters
    ----------
    open_score, close_score
        Hysteresis on the detector's score.
    open_after, open_of
        Rows at or above `open_score`, out of the last `open_of`, that open an incident.
    close_after
        Rows below `close_score` in succession that resolve it.
    min_effect, min_impact_usd_per_hour, min_volume
        Smaller ones open nothing; compared with the detector's effect, impact and volume.
    learned
        Needs a learned normal, so a series younger than the cold start opens nothing.
    severity
        Severity where impact does not say otherwise.
    error_usd_per_hour, critical_usd_per_hour
        Impact from which severity is raised.
    """

    open_score: float = 0.5
    close_score: float = 0.2
    open_after: int = 2
    open_of: int = 3
    close_after: int = 5
    min_effect: float = 0.0
    min_impact_usd_per_hour: float = 0.0
    min_volume: float = 0.0
    learned: bool = True
    severity: Severity = "warning"
    error_usd_per_hour: float = 100.0
    critical_usd_per_hour: float = 1_000.0
    fixed_severity: Severity | None = None


DEFAULTS: dict[str, Policy] = {
    "cost_spike": Policy(min_impact_usd_per_hour=1.0, min_volume=20),
    "budget_burn": Policy(open_after=1, open_of=1, learned=False, min_volume=10),
    "error_burst": Policy(min_effect=1.0, min_volume=10, severity="error", close_after=12),
    "slo_burn": Policy(open_after=1, open_of=1, learned=False, min_volume=50, severity="error"),
    "latency_regression": Policy(min_volume=20),
    "gpu_saturation": Policy(learned=False),
    "engine_saturation": Policy(open_after=3, open_of=4, close_after=12, learned=False, severity="error"),
    "quota_saturation": Policy(min_volume=10, close_after=12, learned=False),
    "gpu_idle": Policy(learned=False, min_impact_usd_per_hour=1.0, severity="info"),
    "gpu_fault": Policy(open_after=1, open_of=1, close_after=60, learned=False, severity="error"),
    "cache_regression": Policy(min_impact_usd_per_hour=0.5, min_volume=20),
    "context_growth": Policy(min_volume=20),
    "traffic_drop": Policy(close_after=3),
    "unpriced_model": Policy(open_after=1, open_of=1, close_after=360, learned=False),
    "data_quality": Policy(min_volume=20, learned=False),
    "pipeline_health": Policy(learned=False),
}
"""Defaults by kind; docs/incidents.md gives their reasons."""


def policies(changes: Mapping[str, KindPolicy]) -> dict[str, Policy]:
    """The policy of every kind, with the operator's changes."""
    out = {}
    for kind in KINDS:
        policy = DEFAULTS[kind]
        change = changes.get(kind)
        if change is not None:
            known = {f.name for f in fields(Policy)} - {"severity"}
            given = {
                name: value
                for name in KindPolicy.__struct_fields__
                if name in known and (value := getattr(change, name)) is not None
            }
            if change.severity is not None:
                given["fixed_severity"] = change.severity
            policy = replace(policy, **given)
        if policy.close_score > policy.open_score:
            policy = replace(policy, close_score=policy.open_score)
        out[kind] = replace(policy, open_of=max(policy.open_of, policy.open_after))
    return out


def severity_of(policy: Policy, impact_usd_per_hour: float | None) -> Severity:
    """Severity of an incident with that impact."""
    if policy.fixed_severity is not None:
        return policy.fixed_severity
    if impact_usd_per_hour is None:
        return policy.severity
    if impact_usd_per_hour >= policy.critical_usd_per_hour:
        return "critical"
    if impact_usd_per_hour >= policy.error_usd_per_hour:
        return "error"
    return policy.severity
