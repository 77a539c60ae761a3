"""Why it happened: contributors, factors and the cause verdict of an incident."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flows.incidents.grouping import related
from schemas.cause import CAUSES, RETRY_HELPS, Cause
from schemas.findings import BASELINE, Report
from schemas.incident import Contributor, Factor
from schemas.series import Series

MAX_CONTRIBUTORS = 5
_FIRST = {name: i for i, name in enumerate(BASELINE)}
_TINY = 1e-9

MEASURE: dict[str, str] = {
    "cost_spike": "cost_pico",
    "budget_burn": "cost_pico",
    "error_burst": "errors",
    "slo_burn": "errors",
    "quota_saturation": "errors",
    "traffic_drop": "requests",
    "context_growth": "input_tokens",
    "cache_regression": "cache_read_tokens",
}
"""Column by which the members of an incident of that kind are compared."""


@dataclass(frozen=True, slots=True)
class Member:
    """What one series did in one row: `BASELINE` columns now and usually, and its errors by cause."""

    series: Series
    current: npt.NDArray[np.int64]
    usual: npt.NDArray[np.float64]
    errors_by_cause: npt.NDArray[np.int64]

    def expected(self, column: str) -> float:
        """Usual level of one column; 0 where it is not known."""
        usual = float(self.usual[_FIRST[column]])
        return 0.0 if math.isnan(usual) else usual

    def delta(self, column: str) -> float:
        """Change of one column against its usual level; an unknown level counts as 0."""
        i = _FIRST[column]
        return float(self.current[i]) - self.expected(column)


def members(reports: Sequence[Report]) -> dict[Series, Member]:
    """All series of a row."""
    return {
        series: Member(series, r.current[i], r.usual[i], r.errors_by_cause[i])
        for r in reports
        if len(r.current)
        for i, series in enumerate(r.series)
    }


def inside(culprit: Series, everyone: Mapping[Series, Member]) -> list[Member]:
    """Parts of the culprit; where it has none, series of other dimensions that share requests with it."""
    parts = [m for s, m in everyone.items() if s != culprit and culprit.contains(s)]
    return parts or [m for s, m in everyone.items() if related(culprit, s) and not s.contains(culprit)]


def contributors(kind: str, culprit: Series, everyone: Mapping[Series, Member]) -> list[Contributor]:
    """Members that carry the change of the culprit, largest share first; the culprit itself if it has no others."""
    column = MEASURE.get(kind)
    own = everyone.get(culprit)
    if column is None or own is None:
        return []
    whole = own.delta(column)
    if abs(whole) < _TINY:
        return []
    scale = 1e-12 if column == "cost_pico" else 1.0
    i = _FIRST[column]
    out = []
    for m in [m for m in inside(culprit, everyone) if m.series != culprit] or [own]:
        share = m.delta(column) / whole
        out.append(
            Contributor(
                dims={d: v for d, v in m.series.as_dict().items() if v},
                # A series that only overlaps may have changed for reasons of its own: it carries the whole at most.
                share=round(share if culprit.contains(m.series) else max(min(share, 1.0), -1.0), 4),
                observed=round(float(m.current[i]) * scale, 9),
                expected=round(m.expected(column) * scale, 9),
            )
        )
    out = [c for c in out if c.share > 0] or out
    out.sort(key=lambda c: (-round(c.share, 2), -len(c.dims), sorted(c.dims.items())))
    return out[:MAX_CONTRIBUTORS]


def error_factors(own: Member | None) -> list[Factor]:
    """Split a change of failures into more requests and a higher share of failures; the shares add up to 1.

    Logarithmic mean Divisia index decomposition of failures = requests × share, as in `cost_factors`.
    """
    if own is None:
        return []
    now_requests, usual_requests = (
        max(float(v), _TINY) for v in (own.current[_FIRST["requests"]], own.expected("requests"))
    )
    now_errors, usual_errors = (max(float(v), _TINY) for v in (own.current[_FIRST["errors"]], own.expected("errors")))
    whole = math.log(now_errors / usual_errors)
    if abs(whole) < _TINY:
        return []
    volume = round(math.log(now_requests / usual_requests) / whole, 4)
    factors = [Factor(name="requests", share=volume), Factor(name="error_share", share=round(1 - volume, 4))]
    return sorted(factors, key=lambda f: (-abs(f.share), f.name))


def cost_factors(culprit: Series, everyone: Mapping[Series, Member]) -> list[Factor]:
    """Split a change of spend into requests, mix, tokens per request, cache rate and price; the shares add up to 1.

    Logarithmic mean Divisia index decomposition over the culprit's members: spend is the sum over members m of
    requests × (share of m) × (tokens per request) × (uncached share of tokens) × (price per uncached token), and each
    factor's effect is the sum of L(spend now, spend usual) × ln(factor now / factor usual), with L the logarithmic
    mean. Members are those of the finest grouping set that covers the culprit.

    References
    ----------
    B. W. Ang (2005), The LMDI approach to decomposition analysis: a practical guide, Energy Policy 33(7), table 2.
    """
    own = everyone.get(culprit)
    if own is None:
        return []
    parts = _finest(culprit, everyone)
    effects = dict.fromkeys(("requests", "mix", "tokens_per_request", "cache_rate", "price"), 0.0)
    all_now = max(sum(float(p.current[_FIRST["requests"]]) for p in parts), _TINY)
    all_usual = max(sum(p.expected("requests") for p in parts), _TINY)
    for p in parts:
        now = _factors([float(v) for v in p.current.tolist()], all_now)
        usual = _factors([p.expected(name) for name in BASELINE], all_usual)
        weight = _log_mean(now["spend"], usual["spend"])
        effects["requests"] += weight * math.log(all_now / all_usual)
        for name in ("mix", "tokens_per_request", "cache_rate", "price"):
            effects[name] += weight * math.log(now[name] / usual[name])
    whole = sum(effects.values())
    spent = max(float(own.current[_FIRST["cost_pico"]]), own.expected("cost_pico"))
    if (
        whole == 0
        or abs(own.delta("cost_pico")) < 0.01 * spent
        or max(abs(e) for e in effects.values()) > 100 * abs(whole)
    ):
        return []  # nothing changed on the whole, or only because huge effects cancel: no split says anything
    shares = {name: round(effect / whole, 4) for name, effect in effects.items()}
    largest = max(shares, key=lambda name: (abs(shares[name]), name))
    shares[largest] = round(shares[largest] + 1 - sum(shares.values()), 4)
    return [Factor(name=n, share=s) for n, s in sorted(shares.items(), key=lambda item: (-abs(item[1]), item[0]))]


def _factors(columns: Sequence[float], all_requests: float) -> dict[str, float]:
    requests = max(columns[_FIRST["requests"]], _TINY)
    spend = max(columns[_FIRST["cost_pico"]], _TINY)
    tokens = max(columns[_FIRST["input_tokens"]] + columns[_FIRST["output_tokens"]], _TINY)
    uncached = max(tokens - columns[_FIRST["cache_read_tokens"]], _TINY)
    return {
        "spend": spend,
        "mix": requests / all_requests,
        "tokens_per_request": tokens / requests,
        "cache_rate": uncached / tokens,
        "price": spend / uncached,
    }


def _log_mean(a: float, b: float) -> float:
    return a if math.isclose(a, b, rel_tol=1e-9) else (a - b) / math.log(a / b)


def _finest(culprit: Series, everyone: Mapping[Series, Member]) -> list[Member]:
    """Members of the finest grouping set below the culprit that covers its requests; the culprit itself if none."""
    own = everyone[culprit]
    by_set: dict[tuple[str, ...], list[Member]] = {}
    for s, m in everyone.items():
        if culprit.contains(s) and len(s.dims) > len(culprit.dims):
            by_set.setdefault(s.dims, []).append(m)
    for dims in sorted(by_set, key=lambda d: (-len(d), d)):
        covered = sum(int(m.current[_FIRST["requests"]]) for m in by_set[dims])
        if covered == int(own.current[_FIRST["requests"]]):
            return sorted(by_set[dims], key=lambda m: m.series.key())
    return [own]


def cause_of(failures: Sequence[int]) -> tuple[Cause, str]:
    """Dominating cause of failures counted by cause (in the order of `CAUSES`), and all counts in words."""
    if not any(failures):
        return Cause.UNKNOWN, ""
    order = sorted(range(len(failures)), key=lambda i: (-failures[i], i))
    words = ", ".join(f"{failures[i]} {CAUSES[i].label}" for i in order if failures[i])
    return CAUSES[order[0]], words


def retry_helps(cause: Cause) -> bool:
    """Whether sending the same request again can help."""
    return RETRY_HELPS.get(cause, False)


GROWTH_SHARE = 0.8
"""Part of a change that requests must carry to count as growth."""


def is_growth(culprit: Series, factors: Sequence[Factor], everyone: Mapping[Series, Member]) -> bool:
    """Whether spend grew because many keys sent more requests: a marketing peak rather than a runaway client."""
    requests = next((f.share for f in factors if f.name == "requests"), 0.0)
    if requests < GROWTH_SHARE:
        return False
    keys = [
        m.delta("requests")
        for s, m in everyone.items()
        if "api_key_id" in s.dims and related(culprit, s) and m.current[_FIRST["requests"]] > 0
    ]
    grown = sum(d for d in keys if d > 0)
    return len(keys) >= 3 and grown > 0 and max(keys) < 0.5 * grown
