"""Raw events as Arrow tables, in the shape of the tables `requests` and `gpu_samples`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from schemas.cause import Cause
from schemas.columns import DIMENSIONS, GPU_DIMENSIONS, MISSING, PRICING_STATUS, Costs, GpuColumns, RequestColumns
from sinks.clickhouse import arrow

CAUSE_LABELS: tuple[str, ...] = ("", *(cause.label for cause in Cause if cause is not Cause.NONE))
"""Text of each cause verdict by its code; empty for success."""

LATENESS_LABELS: tuple[str, ...] = ("on_time", "late", "too_late")

COST_PARTS: tuple[str, ...] = ("input", "cache_read", "cache_write", "output", "reasoning")

_REQUEST_COUNTS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "prefix_tokens",
    "ratelimit_limit_requests", "ratelimit_remaining_requests", "ratelimit_limit_tokens", "ratelimit_remaining_tokens",
)  # fmt: skip
_REQUEST_FLOATS = ("latency_ms", "ttft_ms", "retry_after_ms")
_GPU_COUNTS = ("memory_used_bytes", "memory_total_bytes", "xid", "ecc_uncorrected", "preemptions")
_GPU_FLOATS = (
    "util", "power_w", "power_limit_w", "temperature_c", "requests_running", "requests_waiting", "kv_cache_usage",
    "tokens_per_s",
)  # fmt: skip


def _source(columns: RequestColumns | GpuColumns) -> dict[str, pa.Array]:
    n = len(columns)
    return {
        "topic": arrow.constant(columns.topic, n),
        "partition": pa.array(np.full(n, columns.partition, np.int32)),
        "offset": pa.array(columns.offsets),
        "position": pa.array(columns.positions.astype(np.int32)),
        "lateness": arrow.labels(columns.lateness, LATENESS_LABELS),
    }


def _identities(columns: RequestColumns) -> list[str]:
    """Each event's own id, or its way back to the source where it has none."""
    if "" not in columns.event_id:
        return columns.event_id
    where = f"{columns.topic}/{columns.partition}"
    positions = zip(columns.event_id, columns.offsets.tolist(), columns.positions.tolist(), strict=True)
    return [own or f"{where}/{offset}/{position}" for own, offset, position in positions]


def requests(columns: RequestColumns, costs: Costs, price_version: str) -> pa.Table:
    """Requests with their costs. Money is NULL where no price is known."""
    n = len(columns)
    priced = costs.total_pico != MISSING
    out = {"at": arrow.times(columns.at_ns), "event_id": arrow.texts(_identities(columns)), **_source(columns)}
    out |= {name: arrow.coded(columns.dims[name]) for name in DIMENSIONS}
    out |= {
        "prefix_hash": arrow.coded(columns.prefix_hash),
        "prefix_repeated": pa.array(columns.prefix_repeated),
        "status": pa.array(columns.status.astype(np.uint16)),
        "failed": pa.array(columns.failed),
        "cause": arrow.labels(columns.cause, CAUSE_LABELS),
        "error_message": arrow.sparse_texts(columns.error_message, n),
        "stream": arrow.reported_flags(columns.stream),
        "attempt": arrow.reported_ints(columns.attempt, pa.uint16()),
    }
    out |= {name: arrow.reported_ints(getattr(columns, name)) for name in _REQUEST_COUNTS}
    out |= {name: arrow.reported_floats(getattr(columns, name)) for name in _REQUEST_FLOATS}
    out |= {
        "cost_given_usd": arrow.money(columns.cost_given_pico),
        "outcome_value_usd": arrow.money(columns.outcome_value_pico),
        "pricing_status": arrow.labels(costs.status, PRICING_STATUS),
        "price_source": arrow.coded(costs.source),
        "price_version": arrow.constant(price_version, n),
        "cost_usd": arrow.money(costs.total_pico, priced),
        "missed_cache_usd": arrow.money(costs.missed_cache_pico, priced),
    }
    out |= {f"cost_{part}_usd": arrow.money(getattr(costs, f"{part}_pico"), priced) for part in COST_PARTS}
    return pa.table(out)


def gpu_samples(columns: GpuColumns) -> pa.Table:
    """GPU samples. NULL where something was not reported."""
    out = {"at": arrow.times(columns.at_ns), **_source(columns)}
    out |= {name: arrow.coded(columns.dims[name]) for name in GPU_DIMENSIONS}
    out |= {name: arrow.reported_floats(getattr(columns, name)) for name in _GPU_FLOATS}
    out |= {name: arrow.reported_ints(getattr(columns, name)) for name in _GPU_COUNTS}
    out |= {
        "throttled": arrow.reported_flags(columns.throttled),
        "usd_per_hour": arrow.money(columns.usd_per_hour_pico),
    }
    return pa.table(out)
