"""What each kind of event does to requests: how many there are, and what they look like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flows.simulate.company import Workload
from flows.simulate.failures import failure_of
from flows.simulate.incidents import Planned
from flows.simulate.rows import Bools, Floats, Ints, Rows, source_of, uniform
from schemas.cause import Cause

GARBAGE_WAYS = 6
"""Ways in which a message can be spoilt (see `encode.spoil`)."""


@dataclass(slots=True)
class Live:
    """One planned event, resolved against the company.

    Parameters
    ----------
    number
        Position in the plan; salts its random numbers.
    start_ms, end_ms
        Relative to the start of the simulation.
    scope
        Shape (workloads,): what it happens to.
    becomes
        Shape (workloads,): the workload that requests turn into (itself where nothing changes).
    failures
        Shape (workloads,): number of the failure it brings, 0 for none.
    """

    planned: Planned
    number: int
    start_ms: int
    end_ms: int
    scope: Bools
    becomes: Ints
    failures: Ints

    @property
    def size(self) -> float:
        """Magnitude."""
        return self.planned.magnitude

    @property
    def way(self) -> str:
        """How it comes about."""
        return self.planned.way

    def chance(self, rows: Rows, salt: int = 0) -> Floats:
        """A uniform number of each row that only this event uses."""
        return uniform(rows.id, 1000 + 10 * self.number + salt)

    def ramp(self, at_ms: Ints) -> Floats:
        """How far it has come, 0-1: full after a quarter of its time, at most 5 minutes."""
        rise = max(1.0, min(300_000.0, (self.end_ms - self.start_ms) / 4))
        return np.clip((at_ms - self.start_ms) / rise, 0, 1)


def scope_of(workloads: Sequence[Workload], planned: Planned) -> Bools:
    """Which workloads an event happens to, shape (workloads,); GPU dimensions are left out."""
    dims = {k: v for k, v in planned.dims.items() if k != "user_id"}
    if planned.kind in ("gpu_saturation", "gpu_idle", "gpu_fault"):
        return np.zeros(len(workloads), dtype=bool)
    if planned.kind == "engine_saturation":
        dims = {"provider": "vllm", "model": dims.get("model", "")}
    return np.array([all(w.dim(k) == v for k, v in dims.items()) for w in workloads], dtype=bool)


def variant(workload: Workload, way: str) -> dict[str, str | int] | None:
    """Fields that a workload changes under an event, or None if it stays itself."""
    entry = workload.catalogue_entry
    version = workload.prompt_version
    changed: dict[str, dict[str, str | int]] = {
        "model_switch": {"model": entry.heavier},
        "successor": {"model": entry.successor},
        "newcomer": {"model": entry.newcomer},
        "prompt_bloat": {"prompt_version": f"{version}-next"},
        "broken_prefix": {"prompt_version": f"{version}-next"},
        "batch": {"tier": "batch"} if workload.provider != "vllm" else {},
    }
    fields = {k: v for k, v in changed.get(way, {}).items() if v}
    return fields or None


def failures_of(workloads: Sequence[Workload], planned: Planned) -> Ints:
    """Number of the failure that an event brings to each workload, shape (workloads,)."""
    default = {"quota": "vendor_quota", "queue": "self_hosted_saturation", "blip": "vendor_capacity"}
    label = planned.cause or default.get(planned.way, "timeout")
    cause = next(c for c in Cause if c.label == label)
    return np.array([failure_of(w.provider, cause) for w in workloads], dtype=np.int64)


# ------------------------------------------------------------------ how many requests
def factor(live: Live) -> float:
    """By how much an event multiplies the requests of its scope; 1 leaves them alone."""
    if live.way in ("users", "backfill", "agent_loop"):
        return live.size
    if live.way == "silence":
        return min(1.0, live.size)
    return 1.0


def shape_extra(live: Live, rows: Rows, users: Ints) -> None:
    """Give the requests that an event adds their users: `users` holds each workload's number of users."""
    if live.way == "users":
        # A campaign brings new users in the same proportion as requests.
        rows.user += users[rows.leaf]
    elif live.way == "agent_loop":
        rows.user[:] = loop_user(live.planned)


def loop_user(planned: Planned) -> int:
    """Number of the user whose agent runs in a loop."""
    digits = planned.dims.get("user_id", "").rpartition("-")[2]
    return int(digits) if digits.isdigit() else 7


# ------------------------------------------------------------------ what they look like
def _switch(live: Live, rows: Rows, hit: Bools) -> None:
    moved = hit & (live.chance(rows) < live.size)
    rows.leaf[moved] = live.becomes[rows.leaf[moved]]


def _bloat(live: Live, rows: Rows, hit: Bools) -> None:
    rows.fresh[hit] = rows.fresh[hit] * live.size + rows.prefix_tokens[hit] * (live.size - 1)
    rows.leaf[hit] = live.becomes[rows.leaf[hit]]


def _fail(live: Live, rows: Rows, hit: Bools) -> None:
    failed = hit & (live.chance(rows) < live.size)
    rows.failure[failed] = live.failures[rows.leaf[failed]]


def _quota(live: Live, rows: Rows, hit: Bools) -> None:
    near = live.ramp(rows.at_ms[hit])
    rows.used[hit] = np.maximum(rows.used[hit], rows.used[hit] + (1 - rows.used[hit]) * near)
    failed = hit & (live.chance(rows) < np.where(live.ramp(rows.at_ms) >= 1, live.size, 0))
    rows.failure[failed] = live.failures[rows.leaf[failed]]


def _slow(live: Live, rows: Rows, hit: Bools) -> None:
    rows.ttft_ms[hit] *= live.size
    rows.ms_per_token[hit] *= live.size


def _broken_prefix(live: Live, rows: Rows, hit: Bools) -> None:
    rows.hit[hit] *= min(1.0, live.size)
    # The prompt now starts with the time in minutes, so every minute has a prefix of its own.
    rows.salt[hit] = rows.at_ms[hit] // 60_000 + 1
    rows.leaf[hit] = live.becomes[rows.leaf[hit]]


def _growth(live: Live, rows: Rows, hit: Bools) -> None:
    done = (rows.at_ms[hit] - live.start_ms) / (live.end_ms - live.start_ms)
    whole = rows.fresh[hit] + rows.prefix_tokens[hit]
    rows.fresh[hit] += whole * (live.size - 1) * done


def _garbage(live: Live, rows: Rows, hit: Bools) -> None:
    spoilt = hit & (live.chance(rows) < live.size)
    rows.garbage[spoilt] = 1 + (live.chance(rows, 1)[spoilt] * GARBAGE_WAYS).astype(np.int64)


def _queue(live: Live, rows: Rows, hit: Bools) -> None:
    near = live.ramp(rows.at_ms[hit])
    rows.ttft_ms[hit] *= 1 + (live.size - 1) * near
    rows.ms_per_token[hit] *= 1 + 0.3 * near
    failed = hit & (live.chance(rows) < 0.08 * live.ramp(rows.at_ms))
    rows.failure[failed] = live.failures[rows.leaf[failed]]


def _blip(live: Live, rows: Rows, hit: Bools) -> None:
    _fail(live, rows, hit)
    rows.ttft_ms[hit] *= 1.5


def _batch(live: Live, rows: Rows, hit: Bools) -> None:
    extra = hit & (source_of(rows.id) == live.number % 255 + 1)
    rows.leaf[extra] = live.becomes[rows.leaf[extra]]


def _price_list(live: Live, rows: Rows, hit: Bools) -> None:
    rows.price[hit] *= live.size


CHANGES: dict[str, Callable[[Live, Rows, Bools], None]] = {
    "model_switch": _switch,
    "successor": _switch,
    "newcomer": _switch,
    "prompt_bloat": _bloat,
    "failures": _fail,
    "quota": _quota,
    "slow": _slow,
    "broken_prefix": _broken_prefix,
    "growth": _growth,
    "garbage": _garbage,
    "queue": _queue,
    "blip": _blip,
    "batch": _batch,
    "price_list": _price_list,
}
"""What an event does to the requests of its scope, by its way. Others only change how many there are."""


def apply(live: Live, rows: Rows) -> None:
    """Change the requests that an event happens to, in place."""
    change = CHANGES.get(live.way)
    if change is None:
        return
    hit = live.scope[rows.leaf] & (rows.at_ms >= live.start_ms) & (rows.at_ms < live.end_ms)
    if live.way != "agent_loop" and "user_id" in live.planned.dims:
        hit &= rows.user == loop_user(live.planned)
    if hit.any():
        change(live, rows, hit)
