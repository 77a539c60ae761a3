"""What happened against what was injected: pairs incidents with the simulation's truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.incident import Incident

GRACE = timedelta(minutes=20)
"""An incident may be detected this long after its cause has ended (slow detectors average over 10 to 30 minutes)."""

SHOWS_AS: Mapping[str, frozenset[str]] = {
    "cost_spike": frozenset({"cost_spike", "context_growth", "budget_burn"}),
    "error_burst": frozenset({"error_burst", "slo_burn", "quota_saturation"}),
    "quota_saturation": frozenset({"quota_saturation", "error_burst", "slo_burn"}),
    "slo_burn": frozenset({"slo_burn", "error_burst"}),
    "cache_regression": frozenset({"cache_regression", "cost_spike"}),
    "context_growth": frozenset({"context_growth", "cost_spike"}),
    "engine_saturation": frozenset({"engine_saturation", "gpu_saturation", "latency_regression", "error_burst"}),
    "gpu_saturation": frozenset({"gpu_saturation", "engine_saturation"}),
}
"""Kinds by which an injected kind may rightly be noticed; others only by their own."""


@dataclass(frozen=True)
class Injected:
    """One row of `truth.jsonl`."""

    kind: str
    dims: Mapping[str, str]
    start: datetime
    end: datetime
    magnitude: float
    benign: bool


@dataclass
class Match:
    """An injected event with the incidents that fit it."""

    injected: Injected
    found: list[Incident]

    @property
    def first(self) -> Incident | None:
        """The earliest of its own kind, otherwise the earliest."""
        own = [i for i in self.found if i.kind == self.injected.kind]
        return min(own or self.found, key=lambda i: i.detected_at, default=None)


def parse(row: Mapping[str, object]) -> Injected:
    """Read one row of `truth.jsonl`."""
    dims = row["dims"]
    assert isinstance(dims, dict)
    return Injected(
        kind=str(row["kind"]),
        dims={str(k): str(v) for k, v in dims.items()},
        start=datetime.fromisoformat(str(row["start"])),
        end=datetime.fromisoformat(str(row["end"])),
        magnitude=float(str(row["magnitude"])),
        benign=bool(row["benign"]),
    )


def fits(incident: Incident, injected: Injected) -> bool:
    """Whether an incident can be this injected event: kind, time, and no contradicting dimension."""
    if incident.kind not in SHOWS_AS.get(injected.kind, frozenset({injected.kind})) and not injected.benign:
        return False
    opened, detected = (datetime.fromisoformat(t) for t in (incident.opened_at, incident.detected_at))
    if detected < injected.start or opened > injected.end + GRACE:
        return False
    shared = incident.dims.keys() & injected.dims.keys()
    if not all(incident.dims[d] == injected.dims[d] for d in shared):
        return False
    return bool(shared) or not incident.dims or not injected.dims or incident.kind == injected.kind


def match(truth: Sequence[Injected], opened: Sequence[Incident]) -> tuple[list[Match], list[Incident]]:
    """Pair everything.

    Parameters
    ----------
    truth
        What was injected.
    opened
        First revisions of all incidents.

    Returns
    -------
    tuple
        A `Match` per injected event in order of time, and the incidents that fit none.
    """
    matches = [Match(t, []) for t in sorted(truth, key=lambda t: (t.start, t.kind))]
    unmatched = []
    for incident in opened:
        fitting = [m for m in matches if fits(incident, m.injected)]
        real = [m for m in fitting if not m.injected.benign] or fitting
        if not real:
            unmatched.append(incident)
        for m in real:
            m.found.append(incident)
    return matches, unmatched
