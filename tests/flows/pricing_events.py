"""Requests for pricing tests: everything not named is not reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from schemas.columns import DIMENSIONS, MISSING, Coded, Costs, RequestColumns
from schemas.money import to_usd

SPRING = datetime(2026, 3, 5, 12, tzinfo=UTC)
"""A day on which no price of the recorded usage objects had changed yet."""

_TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "prefix_tokens",
)


def at_ns(moment: datetime) -> int:
    """Nanoseconds since the epoch, exactly."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (moment.resolution) * 1000


def requests(events: Sequence[Mapping[str, Any]]) -> RequestColumns:
    """Columns of events given as dictionaries of event fields (`at` a datetime or nanoseconds)."""
    n = len(events)

    def integers(name: str) -> Any:
        return np.array([e.get(name, MISSING) for e in events], np.int64)

    def texts(name: str) -> Coded:
        values = ["", *sorted({str(e.get(name, "")) for e in events} - {""})]
        return Coded(np.array([values.index(str(e.get(name, ""))) for e in events], np.int32), values)

    status = np.array([e.get("status", 200) for e in events], np.int64)
    times = [e.get("at", SPRING) for e in events]
    zero = np.zeros(n, np.int64)
    return RequestColumns(
        topic="ai.requests",
        partition=0,
        offsets=np.arange(n, dtype=np.int64),
        positions=zero,
        event_id=[""] * n,
        at_ns=np.array([t if isinstance(t, int) else at_ns(t) for t in times], np.int64),
        lateness=np.zeros(n, np.uint8),
        dims={name: texts(name) for name in DIMENSIONS},
        group_dims={},
        prefix_hash=texts("prefix_hash"),
        prefix_repeated=np.array([e.get("prefix_repeated", False) for e in events], bool),
        status=status,
        failed=(status >= 400) | (status == 0),
        cause=np.zeros(n, np.uint8),
        stream=np.full(n, MISSING, np.int8),
        attempt=zero + 1,
        **{name: integers(name) for name in _TOKENS},
        latency_ms=np.full(n, np.nan),
        ttft_ms=np.full(n, np.nan),
        retry_after_ms=np.full(n, np.nan),
        ratelimit_limit_requests=zero - 1,
        ratelimit_remaining_requests=zero - 1,
        ratelimit_limit_tokens=zero - 1,
        ratelimit_remaining_tokens=zero - 1,
        cost_given_pico=integers("cost_given_pico"),
        outcome_value_pico=zero - 1,
    )


def usd(pico: Any) -> Decimal:
    """A column's only value in US dollars."""
    (value,) = pico.tolist()
    return to_usd(value)


def rows(costs: Costs) -> list[tuple[Any, ...]]:
    """Costs as tuples, to compare blocks."""
    columns = (
        costs.status, costs.total_pico, costs.input_pico, costs.cache_read_pico, costs.cache_write_pico,
        costs.output_pico, costs.reasoning_pico, costs.missed_cache_pico,
    )  # fmt: skip
    return list(zip(*(c.tolist() for c in columns), costs.source.texts(), strict=True))
