"""The GPU event: one sample of one GPU (or MIG instance) and of the engine that runs on it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.request_event import Count, Name, Usd

Ratio = Annotated[float, Meta(ge=0, le=1)]
NonNegative = Annotated[float, Meta(ge=0, le=1e15)]

UTIL_SOURCES: tuple[str, ...] = ("sm_active", "gr_engine_active", "gpu_util")
"""What `util` was measured by, best first. `gpu_util` only says that some kernel ran."""


class GpuEvent(Struct, frozen=True, kw_only=True, gc=False):
    """One sample of one GPU. `gpu_uuid` or `gpu_index` is required. Ratios are 0-1. `None` means "not reported".

    The evolution rules of `RequestEvent` apply.
    """

    at: str | int | float
    node: Name
    cluster: Name | None = None
    gpu_uuid: Name | None = None
    gpu_index: Annotated[int, Meta(ge=0, le=1024)] | None = None
    mig_id: Name | None = None
    gpu_model: Name | None = None
    pool: Name | None = None
    namespace: Name | None = None
    pod: Name | None = None
    """Pod that holds the GPU; absent on a free one."""
    team: Name | None = None
    model: Name | None = None
    """LLM that the engine on this GPU serves."""
    util: Ratio | None = None
    util_source: Literal["sm_active", "gr_engine_active", "gpu_util"] | None = None
    memory_used_bytes: Count | None = None
    memory_total_bytes: Count | None = None
    power_w: NonNegative | None = None
    power_limit_w: NonNegative | None = None
    temperature_c: Annotated[float, Meta(ge=-100, le=1000)] | None = None
    xid: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    """Last XID seen (a level that stays, as in DCGM; changes are detected here). 0 means none."""
    ecc_uncorrected: Count | None = None
    """Running count of uncorrectable memory errors."""
    throttled: bool | None = None
    requests_running: NonNegative | None = None
    requests_waiting: NonNegative | None = None
    kv_cache_usage: Ratio | None = None
    preemptions: Count | None = None
    """Running count of preempted requests."""
    tokens_per_s: NonNegative | None = None
    usd_per_hour: Usd | None = None
