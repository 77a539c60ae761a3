"""The default plan: a varied set of incidents and benign events, fitted to the length of the simulation."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from flows.simulate.company import Company, Workload
from flows.simulate.encode import unit_prices
from flows.simulate.incidents import BENIGN, GPU_KINDS, Planned
from flows.simulate.rhythm import level_at, week_of

Picks = dict[str, str]

MONEY_KINDS = ("cost_spike", "budget_burn", "cache_regression", "context_growth", "unpriced_model", "price_change")
"""Kinds whose targets are chosen by spend; others by requests."""


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of event that the plan can hold.

    Parameters
    ----------
    minutes
        Natural length; short simulations shorten it.
    sizes
        Magnitude, drawn between the two.
    by
        Dimensions that name its target.
    """

    kind: str
    how: str
    minutes: float
    sizes: tuple[float, float]
    by: tuple[str, ...]
    cause: str | None = None


EARLY: tuple[Card, ...] = (
    Card("error_burst", "failures", 25, (0.45, 0.7), ("provider", "model"), "vendor_capacity"),
    Card("gpu_fault", "xid", 60, (79, 79), ("node", "gpu_uuid")),
    Card("cost_spike", "agent_loop", 40, (5, 8), ("team", "api_key_id", "user_id")),
)
"""Come first, in this order: they show without a long history."""

DECK: tuple[Card, ...] = (
    Card("engine_saturation", "queue", 35, (4, 8), ("model",)),
    Card("deploy_blip", "blip", 1 / 3, (0.4, 0.6), ("team", "product")),
    Card("quota_saturation", "quota", 40, (0.35, 0.6), ("provider", "model"), "vendor_quota"),
    Card("cost_spike", "model_switch", 90, (1, 1), ("team", "product")),
    Card("unpriced_model", "newcomer", 120, (0.6, 1.0), ("team", "product")),
    Card("marketing_peak", "users", 90, (2, 3), ("team",)),
    Card("latency_regression", "slow", 60, (2, 3), ("provider", "model")),
    Card("cache_regression", "broken_prefix", 120, (0.05, 0.15), ("team", "product")),
    Card("gpu_idle", "idle", 120, (0, 0), ("pool", "team")),
    Card("traffic_drop", "silence", 30, (0, 0), ("team", "product")),
    Card("data_quality", "garbage", 40, (0.4, 0.8), ("team", "product")),
    Card("nightly_batch", "batch", 60, (2, 4), ("team", "product")),
    Card("error_burst", "failures", 30, (0.85, 1.0), ("team", "api_key_id"), "auth"),
    Card("cost_spike", "prompt_bloat", 120, (3, 5), ("team", "product")),
    Card("gpu_saturation", "busy", 60, (0.99, 1.0), ("pool",)),
    Card("model_launch", "successor", 180, (0.5, 0.8), ("team", "product")),
    Card("context_growth", "growth", 360, (3, 5), ("team", "product")),
    Card("error_burst", "failures", 20, (0.3, 0.5), ("team", "product"), "bad_request"),
    Card("price_change", "price_list", 240, (0.75, 1.25), ("team", "product")),
    Card("budget_burn", "backfill", 300, (2, 3), ("team",)),
    Card("error_burst", "failures", 25, (0.3, 0.5), ("provider", "model"), "timeout"),
    Card("gpu_fault", "xid", 60, (48, 48), ("node", "gpu_uuid")),
    Card("slo_burn", "failures", 240, (0.08, 0.12), ("provider", "model"), "vendor_capacity"),
    Card("dst_shift", "clock", 1440, (1, 1), ("team",)),
)
"""Come after, shuffled."""

GUARD = timedelta(minutes=2)
"""Quiet time between two events on the same target, at least; long simulations keep a sixtieth of their length."""


def default_plan(company: Company, *, minutes: int, seed: int, start: datetime) -> list[Planned]:
    """Plan events for a simulation of 30 minutes to 14 days; the seed decides teams, models, sizes and order.

    Targets of events that overlap are disjoint, so that each can be judged by itself.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 8]))
    count = round(9 + minutes / 144)
    deck = list(EARLY)
    # Slow events need room: a shift of the clocks says nothing within half an hour.
    fitting = [card for card in DECK if card.minutes <= max(120, minutes / 3)]
    while len(deck) < count:
        shuffled = [fitting[int(i)] for i in rng.permutation(len(fitting))]
        # Kinds that have come least often come first, so that a short plan is varied too.
        come = Counter(card.kind for card in deck)
        turns = []
        for card in shuffled:
            turns.append((come[card.kind], card))
            come[card.kind] += 1
        deck.extend(card for _, card in sorted(turns, key=lambda turn: turn[0]))
    first = max(2.0, min(0.1 * minutes, 90.0))
    step = (minutes * 0.92 - first) / count
    planned: list[Planned] = []
    taken: list[tuple[datetime, datetime, frozenset[str]]] = []
    guard = max(GUARD, timedelta(minutes=min(minutes / 60, 60)))
    for position, card in enumerate(deck[:count]):
        begin = round((first + position * step + 0.2 * step * float(rng.random())) * 60)
        length = max(card.minutes, 3.0) if card.minutes >= 1 else card.minutes
        limit = max(3.0, minutes * (0.12 if card.minutes <= 120 else 0.3))
        began = start + timedelta(seconds=begin)
        ended = began + timedelta(seconds=max(20, round(min(length, limit, (minutes - begin / 60) * 0.95) * 60)))
        size = round(float(rng.uniform(*card.sizes)), 2)
        targets = _targets(company, card, began)
        for pick in rng.permutation(len(targets)).tolist():
            dims, parts = targets[pick]
            if any(b < ended + guard and began < e + guard and parts & p for b, e, p in taken):
                continue
            taken.append((began, ended, parts))
            planned.append(
                Planned(
                    kind=card.kind, dims=dims, start=began, end=ended, magnitude=size, benign=card.kind in BENIGN,
                    cause=card.cause, how=card.how,
                )
            )  # fmt: skip
            break
    return planned


def _targets(company: Company, card: Card, at: datetime) -> list[tuple[Picks, frozenset[str]]]:
    """Where a card can happen: dimensions, with the parts of the company that they touch."""
    if card.kind in GPU_KINDS:
        return _gpu_targets(company, card)
    groups: dict[tuple[str, ...], list[Workload]] = {}
    names = tuple(d for d in card.by if d != "user_id")
    for w in company.workloads:
        groups.setdefault(tuple(w.dim(n) for n in names), []).append(w)
    weight = {w: spend(w) if card.kind in MONEY_KINDS else w.share for w in company.workloads}
    moment = at.timestamp()
    found = []
    for values, members in groups.items():
        level = [float(level_at(week_of(w.rhythm, w.utc_offset_h)[None], moment)[0]) for w in members]
        now = sum(weight[w] * x for w, x in zip(members, level, strict=True))
        # Big enough to matter, and awake.
        enough = card.how == "price_list" or (now >= 0.03 * sum(weight.values()) and max(level) >= 0.3)
        if not enough or not all(_fits(card, w) for w in members):
            continue
        dims = dict(zip(names, values, strict=True))
        if "user_id" in card.by:
            dims["user_id"] = f"{members[0].product}-00007"
        found.append((dims, frozenset(f"team {w.team}" for w in members)))
    return found


def spend(w: Workload) -> float:
    """Expected spend of a workload, relative to others', before any cache saving."""
    if w.provider == "vllm":
        return 0.0
    price_in, _, price_out = unit_prices(w)
    fresh = w.fresh * math.exp(w.fresh_sigma**2 / 2)
    return w.share * ((fresh + w.prefix_tokens) * price_in + w.output * math.exp(w.output_sigma**2 / 2) * price_out)


def _much_dearer(w: Workload) -> bool:
    heavier = w.catalogue_entry.heavier
    return bool(heavier) and unit_prices(replace(w, model=heavier))[2] >= 2.5 * unit_prices(w)[2]


def _fits(card: Card, w: Workload) -> bool:
    entry = w.catalogue_entry
    if card.how == "price_list":
        return w.reports_cost
    if card.how == "batch":
        return w.provider != "vllm" and w.operation == "chat"
    if w.rhythm in ("nightly", "hourly"):
        return False
    needs = {
        "model_switch": w.provider != "vllm" and _much_dearer(w),
        "successor": bool(entry.successor),
        "newcomer": w.provider != "vllm",
        "broken_prefix": w.prefix_tokens >= 1024 and w.hit_rate > 0.4,
        "prompt_bloat": w.provider != "vllm" and w.operation == "chat",
        "agent_loop": w.provider != "vllm" and w.operation == "chat",
        "growth": w.provider != "vllm" and w.operation == "chat",
        "backfill": w.provider != "vllm",
        "quota": w.provider in ("openai", "anthropic", "azure.ai.openai"),
    }
    if card.cause == "vendor_capacity":
        return w.provider != "vllm"
    return needs.get(card.how, True)


def _gpu_targets(company: Company, card: Card) -> list[tuple[Picks, frozenset[str]]]:
    found: dict[tuple[str, ...], tuple[Picks, set[str]]] = {}
    for g in company.gpus:
        dims = {"pool": g.pool, "team": g.team, "model": g.model, "node": g.node, "gpu_uuid": g.uuid}
        role_fits = {
            "engine_saturation": g.role == "engine",
            "gpu_saturation": g.role == "engine",
            "gpu_idle": g.role == "training",
            "gpu_fault": g.role == "training",
        }[card.kind]
        if not role_fits:
            continue
        picks = {name: dims[name] for name in card.by}
        parts = {f"pool {g.pool} {g.team}"}
        if g.model:
            parts |= {f"team {w.team}" for w in company.workloads if w.model == g.model}
        found.setdefault(tuple(picks.values()), (picks, set()))[1].update(parts)
    return [(picks, frozenset(parts)) for picks, parts in found.values()]
