"""Columns and windows for tests: plausible, different from row to row, the same for the same arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.cause import CAUSES
from schemas.columns import (
    DIMENSIONS,
    GPU_DIMENSIONS,
    MISSING,
    PRICED,
    UNPRICED,
    Coded,
    Costs,
    GpuColumns,
    RequestColumns,
)
from schemas.gpu_window import GPU_SERIES_DIMS, MAXIMA, OWNER_DIMS, GpuWindows
from schemas.gpu_window import SUMS as GPU_SUMS
from schemas.request_window import COLUMN, QUANTILES, SKETCHES, SUMS, RequestWindows, SparseSketches
from schemas.series import Series
from schemas.sketch import bucket_of, quantiles

NOON_NS = 1_767_268_800_000_000_000
"""2026-01-01 12:00 UTC."""

SECOND_NS = 1_000_000_000

VALUES: dict[str, list[str]] = {
    "team": ["", "search", "support", "growth"],
    "product": ["", "chat", "agent"],
    "environment": ["production", "staging"],
    "provider": ["openai", "anthropic", "self"],
    "model": ["example-large", "example-small", "mystery"],
    "operation": ["chat", "embeddings"],
}
"""Values of some dimensions; the others hold a few numbered values."""


def coded(rng: np.random.Generator, n: int, values: list[str]) -> Coded:
    """A random dictionary-encoded column."""
    return Coded(rng.integers(0, len(values), n).astype(np.int32), list(values))


def request_columns(n: int, seed: int = 0, **overrides: Any) -> RequestColumns:
    """Requests of one partition, 10 a second from `NOON_NS`; the model `mystery` has no price.

    `overrides` replace fields; an entry of `DIMENSIONS` given as a list of n texts replaces that dimension.
    """
    rng = np.random.default_rng(seed)
    dims = {name: coded(rng, n, VALUES.get(name, ["", *(f"{name}-{i}" for i in range(1, 5))])) for name in DIMENSIONS}
    for name in set(overrides) & set(DIMENSIONS):
        texts = overrides.pop(name)
        values = sorted(set(texts))
        dims[name] = Coded(np.array([values.index(t) for t in texts], np.int32), values)
    failed = rng.random(n) < 0.1
    tokens = rng.integers(100, 5_000, n)
    fields: dict[str, Any] = {
        "topic": "ai.requests",
        "partition": 0,
        "offsets": np.arange(n, dtype=np.int64),
        "positions": np.zeros(n, np.int64),
        "event_id": [f"event-{seed}-{i}" for i in range(n)],
        "at_ns": NOON_NS + np.arange(n, dtype=np.int64) * SECOND_NS // 10,
        "lateness": np.zeros(n, np.uint8),
        "dims": dims,
        "group_dims": {name: dims[name] for name in ("team", "provider", "model")},
        "prefix_hash": coded(rng, n, ["", "aa", "bb"]),
        "prefix_repeated": rng.random(n) < 0.3,
        "status": np.where(failed, 429, 200).astype(np.int64),
        "failed": failed,
        "cause": np.where(failed, rng.integers(1, len(CAUSES) + 1, n), 0).astype(np.uint8),
        "stream": rng.integers(-1, 2, n).astype(np.int8),
        "attempt": np.where(rng.random(n) < 0.5, MISSING, 1).astype(np.int64),
        "input_tokens": tokens.astype(np.int64),
        "output_tokens": np.where(failed, MISSING, rng.integers(1, 900, n)).astype(np.int64),
        "cache_read_tokens": tokens // 2,
        "cache_write_tokens": np.full(n, MISSING, np.int64),
        "reasoning_tokens": np.zeros(n, np.int64),
        "prefix_tokens": tokens // 3,
        "latency_ms": np.where(failed, np.nan, rng.lognormal(6, 1, n)),
        "ttft_ms": np.where(rng.random(n) < 0.5, np.nan, rng.lognormal(4, 1, n)),
        "retry_after_ms": np.full(n, np.nan),
        "ratelimit_limit_requests": np.full(n, 1_000, np.int64),
        "ratelimit_remaining_requests": rng.integers(0, 1_000, n),
        "ratelimit_limit_tokens": np.full(n, MISSING, np.int64),
        "ratelimit_remaining_tokens": np.full(n, MISSING, np.int64),
        "cost_given_pico": np.full(n, MISSING, np.int64),
        "outcome_value_pico": np.full(n, MISSING, np.int64),
        "error_message": {int(i): f"quota of row {i} exceeded" for i in np.flatnonzero(failed)},
    }
    fields.update(overrides)
    return RequestColumns(**fields)


def costs_for(columns: RequestColumns) -> Costs:
    """Costs at 3 USD per million input tokens, a tenth of that from the cache, 15 USD out; `mystery` is unpriced."""
    models = np.array(columns.dims["model"].values, object)[columns.dims["model"].codes]
    known = models != "mystery"
    cached = np.maximum(columns.cache_read_tokens, 0)
    fresh = np.maximum(columns.input_tokens, 0) - cached
    parts = {
        "input": np.where(known, fresh * 3_000_000, 0),
        "cache_read": np.where(known, cached * 300_000, 0),
        "output": np.where(known, np.maximum(columns.output_tokens, 0) * 15_000_000, 0),
    }
    zero = np.zeros(len(columns), np.int64)
    return Costs(
        status=np.where(known, PRICED, UNPRICED).astype(np.uint8),
        total_pico=np.where(known, sum(parts.values(), zero), MISSING).astype(np.int64),
        input_pico=parts["input"],
        cache_read_pico=parts["cache_read"],
        cache_write_pico=zero,
        output_pico=parts["output"],
        reasoning_pico=zero,
        missed_cache_pico=np.where(known & columns.prefix_repeated, 1_234_567, 0).astype(np.int64),
        source=Coded(known.astype(np.int32), ["", "overlay"]),
    )


def gpu_columns(n: int, seed: int = 0, **overrides: Any) -> GpuColumns:
    """GPU samples of one partition, one a second from `NOON_NS`."""
    rng = np.random.default_rng(seed)
    dims = {name: coded(rng, n, ["", *(f"{name}-{i}" for i in range(1, 4))]) for name in GPU_DIMENSIONS}
    used = rng.integers(0, 80_000_000_000, n)
    fields: dict[str, Any] = {
        "topic": "ai.gpus",
        "partition": 0,
        "offsets": np.arange(n, dtype=np.int64),
        "positions": np.zeros(n, np.int64),
        "at_ns": NOON_NS + np.arange(n, dtype=np.int64) * SECOND_NS,
        "lateness": np.zeros(n, np.uint8),
        "dims": dims,
        "util": np.where(rng.random(n) < 0.1, np.nan, rng.random(n)),
        "memory_used_bytes": used,
        "memory_total_bytes": np.full(n, 80_000_000_000, np.int64),
        "power_w": rng.uniform(70, 700, n),
        "power_limit_w": np.full(n, 700.0),
        "temperature_c": rng.uniform(30, 85, n),
        "xid": np.where(rng.random(n) < 0.05, 79, 0).astype(np.int64),
        "ecc_uncorrected": np.full(n, MISSING, np.int64),
        "throttled": rng.integers(-1, 2, n).astype(np.int8),
        "requests_running": np.full(n, np.nan),
        "requests_waiting": np.full(n, np.nan),
        "kv_cache_usage": rng.random(n),
        "preemptions": np.full(n, MISSING, np.int64),
        "tokens_per_s": rng.uniform(0, 5_000, n),
        "usd_per_hour_pico": np.where(rng.random(n) < 0.5, MISSING, 2_490_000_000_001).astype(np.int64),
    }
    fields.update(overrides)
    return GpuColumns(**fields)


def request_windows(
    series: list[Series] | None = None,
    *,
    start_ns: int = NOON_NS,
    length_s: int = 10,
    version: int = 1,
    seed: int = 0,
    latencies: list[np.ndarray[Any, Any]] | None = None,
) -> RequestWindows:
    """One closed window of some series; `latencies` are the values that `latency_ms` of each series saw."""
    rng = np.random.default_rng(seed)
    if series is None:
        series = [*(Series("requests", ("team",), (t,)) for t in ("growth", "search")), Series("requests", (), ())]
    n = len(series)
    sums = rng.integers(0, 10_000, (n, len(SUMS))).astype(np.int64)
    sums[:, COLUMN["requests"]] = rng.integers(100, 200, n)
    sums[:, COLUMN["unpriced_requests"]] = 0
    values = {name: [rng.lognormal(5, 1, 50) for _ in range(n)] for name in SKETCHES}
    if latencies is not None:
        values["latency_ms"] = latencies
    sketches = {name: sparse(values[name]) for name in SKETCHES}
    return RequestWindows(
        start_ns=start_ns,
        end_ns=start_ns + length_s * SECOND_NS,
        version=version,
        series=series,
        sums=sums,
        sketches=sketches,
        quantiles={
            name: quantiles(cells.rows, cells.buckets, cells.counts, n, QUANTILES) for name, cells in sketches.items()
        },
    )


def sparse(rows: list[np.ndarray[Any, Any]]) -> SparseSketches:
    """Sketches of the values of each row."""
    cells = [np.unique(bucket_of(np.asarray(values, np.float64)), return_counts=True) for values in rows]
    return SparseSketches(
        rows=np.repeat(np.arange(len(rows), dtype=np.int64), [len(buckets) for buckets, _ in cells]),
        buckets=np.concatenate([np.empty(0, np.int16), *(buckets for buckets, _ in cells)]).astype(np.int16),
        counts=np.concatenate([np.empty(0, np.int64), *(counts for _, counts in cells)]).astype(np.int64),
    )


def gpu_windows(n_gpus: int = 3, *, start_ns: int = NOON_NS, version: int = 1, seed: int = 0) -> GpuWindows:
    """One closed window of some GPUs and the total of them."""
    rng = np.random.default_rng(seed)
    gpus = [Series("gpus", GPU_SERIES_DIMS, ("east", "node-1", f"GPU-{i}", "")) for i in range(n_gpus)]
    series = [*gpus, Series("gpus", ("pool",), ("inference",))]
    n = len(series)
    sums = rng.integers(1, 10_000, (n, len(GPU_SUMS))).astype(np.int64)
    sums[:, GPU_SUMS.index("unpriced_ms")] = 0
    maxima = rng.random((n, len(MAXIMA)))
    maxima[0] = np.nan
    return GpuWindows(
        start_ns=start_ns,
        end_ns=start_ns + 10 * SECOND_NS,
        version=version,
        series=series,
        is_gpu=np.arange(n) < n_gpus,
        sums=sums,
        maxima=maxima,
        owners={name: [f"{name}-a"] * n_gpus + [""] for name in OWNER_DIMS},
        xids=[(79, 13), *((),) * (n - 1)],
    )
