"""Second thoughts before an incident opens: a fault, or only traffic that moved from one series to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.incidents.explain import MEASURE, Member
from schemas.findings import Findings, Report
from schemas.series import Series

NET = 0.5
"""A change counts if at least this part of it is left after what its siblings lost (or gained) is set against it."""

ADDITIVE: Mapping[str, float] = {"cost_spike": 1.0, "budget_burn": 1.0, "traffic_drop": -1.0}
"""Kinds whose measure adds up over series, with the sign of a bad change."""

RATIOS: frozenset[str] = frozenset({"latency_regression", "context_growth", "cache_regression"})
"""Kinds whose measure is a ratio or a quantile: a broad series can move although no part of it does, when the mix of
its parts changes (Simpson's paradox)."""

SUPPORT = 0.2
"""Score that some part of a broad series must reach for its ratio to be believed."""


def moved(kind: str, culprit: Series, everyone: Mapping[Series, Member]) -> bool:
    """Whether the change is a shift between siblings: a new model or prompt version takes over another's traffic.

    Siblings have the same dimensions and, where those exist, the same team and product.
    """
    sign = ADDITIVE.get(kind)
    own = everyone.get(culprit)
    if sign is None or own is None or not culprit.dims:
        return False
    column = MEASURE[kind]
    mine = culprit.as_dict()
    fixed = [d for d in ("team", "product") if d in mine and len(mine) > 1]
    change = sign * own.delta(column)
    against = sum(
        min(sign * m.delta(column), 0.0)
        for s, m in everyone.items()
        if s.dims == culprit.dims and s != culprit and all(s.as_dict()[d] == mine[d] for d in fixed) and fixed
    )
    return change > 0 and change + against < NET * change


def only_mix(kind: str, culprit: Series, detector: str, reports: Sequence[Report]) -> bool:
    """Whether a broad series' ratio moved although none of its parts did.

    Prompt versions are no such parts: a new one that replaces the old is a cause, not a change of mix.
    """
    if kind not in RATIOS:
        return False
    parts = [
        float(f.score[i])
        for report, f in _findings(detector, reports)
        for i, s in enumerate(report.series)
        if len(s.dims) > len(culprit.dims) and "prompt_version" not in s.dims and culprit.contains(s)
    ]
    return bool(parts) and max(parts) < SUPPORT


def _findings(detector: str, reports: Sequence[Report]) -> list[tuple[Report, Findings]]:
    return [(r, f) for r in reports for f in r.findings if f.detector == detector]
