"""What an incident says: summary, times, links. Plain text; every sink escapes it in its own way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

NS = 1_000_000_000

HEADLINE: dict[str, str] = {
    "cost_spike": "spends more than usual",
    "budget_burn": "burns its budget too fast",
    "error_burst": "fails more often than usual",
    "slo_burn": "burns its error budget",
    "latency_regression": "answers slower than usual",
    "gpu_saturation": "is running out of GPU",
    "engine_saturation": "is saturated: requests wait",
    "quota_saturation": "runs into its quota",
    "gpu_idle": "holds idle GPUs",
    "gpu_fault": "has a GPU fault",
    "cache_regression": "reads less from the prompt cache than usual",
    "context_growth": "sends longer inputs than usual",
    "traffic_drop": "has lost its traffic",
    "unpriced_model": "uses a model without a price",
    "data_quality": "delivers unusable telemetry",
    "pipeline_health": "is behind, or cannot hand over what it has",
}
"""What each kind of incident says of its series."""

RULES: dict[str, str] = {
    "gpu_idle": "limit", "slo_burn": "sustainable:", "budget_burn": "budget:", "pipeline_health": "limit",
    "unpriced_model": "", "gpu_fault": "",
}  # fmt: skip
"""Kinds that are measured against a rule rather than against the past, with the word for it; empty: say nothing."""

_DASHBOARD: dict[str, str] = {
    "cost_spike": "attribution", "budget_burn": "attribution", "unpriced_model": "attribution",
    "error_burst": "observability", "slo_burn": "observability", "latency_regression": "observability",
    "traffic_drop": "observability", "data_quality": "observability", "pipeline_health": "observability",
    "cache_regression": "cost-efficiency", "context_growth": "cost-efficiency",
    "gpu_saturation": "capacity", "engine_saturation": "capacity", "quota_saturation": "capacity",
    "gpu_idle": "capacity", "gpu_fault": "capacity",
}  # fmt: skip


def rfc3339(ns: int) -> str:
    """A time as text: UTC, milliseconds only where there are any."""
    whole, rest = divmod(ns, NS)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest // 1_000_000:03d}Z" if rest else f"{text}Z"


def name_of(dims: Mapping[str, str]) -> str:
    """A series in words: `team search, model gpt-4o`."""
    return ", ".join(f"{d.removesuffix('_id')} {v or '(none)'}" for d, v in dims.items()) or "everything"


def amount(value: float, unit: str) -> str:
    """A value with its unit, in three or four significant digits."""
    if math.isnan(value):
        return "unknown"
    if unit.startswith("USD"):
        return f"${value:,.2f}{unit.removeprefix('USD').replace(' per hour', '/h')}"
    if unit.startswith("share of "):
        return f"{value:.1%} of {unit.removeprefix('share of ')}"
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".strip()


def summary(
    kind: str,
    dims: Mapping[str, str],
    *,
    observed: float,
    expected: float,
    unit: str,
    impact_usd_per_hour: float | None,
    reason: str,
) -> str:
    """One or two sentences: what, where, how much and why."""
    who = "Tidegauge itself" if kind == "pipeline_health" else name_of(dims)
    text = f"{who} {HEADLINE[kind]}: {amount(observed, unit)}"
    if not math.isnan(expected) and kind not in RULES:
        text += f" instead of {amount(expected, unit)}"
    elif RULES.get(kind) and not math.isnan(expected):
        text += f" ({RULES[kind]} {amount(expected, unit)})"
    if impact_usd_per_hour is not None and impact_usd_per_hour > 0:
        text += f", {amount(impact_usd_per_hour, 'USD per hour')} more"
    text = text[:1].upper() + text[1:] + "."
    reason = reason.strip()
    return f"{text} {reason}{'' if reason.endswith('.') else '.'}" if reason else text


def links(
    kind: str, incident_id: str, dims: Mapping[str, str], start_ns: int, end_ns: int, *, dashboard: str, runbook: str
) -> dict[str, str]:
    """Dashboard at the right time range and series, and the runbook page; empty where not configured."""
    out = {}
    if dashboard:
        around = 1_800 * 1_000
        query: dict[str, int | str] = {"from": start_ns // 1_000_000 - around, "to": end_ns // 1_000_000 + around}
        query |= {f"var-{d}": v for d, v in dims.items()}
        out["dashboard"] = f"{dashboard.rstrip('/')}/d/tidegauge-{_DASHBOARD[kind]}?{urlencode(query)}"
    if runbook:
        out["runbook"] = f"{runbook.rstrip('/')}/{quote(kind)}.md"
    return out
