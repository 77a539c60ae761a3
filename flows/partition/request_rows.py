"""Request events as columns, and the rules that hold between the fields of one event."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flows.partition.columns import Filter, Numbers, TextColumn, amounts, flags, kept, real_numbers, whole_numbers
from schemas.columns import DIMENSIONS, Coded, FloatArray, IntArray
from schemas.errors import Reason
from schemas.request_event import RequestEvent

WHOLE: tuple[str, ...] = (
    "status", "attempt", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
    "prefix_tokens", "ratelimit_limit_requests", "ratelimit_remaining_requests", "ratelimit_limit_tokens",
    "ratelimit_remaining_tokens", "cost_usd", "outcome_value_usd",
)  # fmt: skip
"""Integer columns (the last two in pico-USD)."""
REAL: tuple[str, ...] = ("latency_ms", "ttft_ms", "retry_after_ms")

CACHE_ABOVE_INPUT = "cache_read_tokens + cache_write_tokens exceed input_tokens, which must include them"
REASONING_ABOVE_OUTPUT = "reasoning_tokens exceed output_tokens, which must include them"
AMOUNT = "`$.{}` is not an amount from 0 to 1,000,000 USD"


class DecodedRequests:
    """The usable rows of a block, before anything that depends on earlier blocks."""

    def __init__(
        self,
        event_id: list[str | None],
        dims: dict[str, Coded],
        prefix_hash: Coded,
        whole: dict[str, IntArray],
        real: dict[str, FloatArray],
        stream: npt.NDArray[np.int8],
        failed: npt.NDArray[np.bool_],
        messages: dict[int, str],
    ) -> None:
        self.event_id = event_id
        self.dims = dims
        self.prefix_hash = prefix_hash
        self.whole = whole
        self.real = real
        self.stream = stream
        self.failed = failed
        self.messages = messages
        """Error texts of failed rows, as reported."""


class RequestRows:
    """Gathers the events of one block piece by piece."""

    def __init__(self) -> None:
        self._texts = {name: TextColumn() for name in (*DIMENSIONS, "prefix_hash")}
        self._numbers = Numbers()
        self._ids: list[str | None] = []
        self._messages: dict[int, str] = {}

    def add(self, e: list[RequestEvent]) -> tuple[list[Any], dict[int, tuple[Reason, str]]]:
        """Append events.

        Returns
        -------
        at
            Their times as decoded.
        refused
            By row of the piece: why it cannot be used.
        """
        # One comprehension per field: twice as fast as attrgetter, four times as fast as a loop over the events.
        texts: dict[str, list[str | None]] = {
            "team": [x.team for x in e],
            "product": [x.product for x in e],
            "user_id": [x.user_id for x in e],
            "api_key_id": [x.api_key_id for x in e],
            "environment": [x.environment for x in e],
            "provider": [x.provider for x in e],
            "model": [x.model for x in e],
            "model_served": [x.model_served for x in e],
            "region": [x.region for x in e],
            "deployment": [x.deployment for x in e],
            "operation": [x.operation for x in e],
            "service_tier": [x.service_tier for x in e],
            "prompt_name": [x.prompt_name for x in e],
            "prompt_version": [x.prompt_version for x in e],
            "error_type": [x.error_type for x in e],
            "error_code": [x.error_code for x in e],
            "finish_reason": [x.finish_reason for x in e],
            "outcome": [x.outcome for x in e],
            "prefix_hash": [x.prefix_hash for x in e],
        }
        for name, column in self._texts.items():
            column.add(texts[name])
        numbers = {
            "status": whole_numbers([x.status for x in e]),
            "attempt": whole_numbers([x.attempt for x in e]),
            "input_tokens": whole_numbers([x.input_tokens for x in e]),
            "output_tokens": whole_numbers([x.output_tokens for x in e]),
            "cache_read_tokens": whole_numbers([x.cache_read_tokens for x in e]),
            "cache_write_tokens": whole_numbers([x.cache_write_tokens for x in e]),
            "reasoning_tokens": whole_numbers([x.reasoning_tokens for x in e]),
            "prefix_tokens": whole_numbers([x.prefix_tokens for x in e]),
            "ratelimit_limit_requests": whole_numbers([x.ratelimit_limit_requests for x in e]),
            "ratelimit_remaining_requests": whole_numbers([x.ratelimit_remaining_requests for x in e]),
            "ratelimit_limit_tokens": whole_numbers([x.ratelimit_limit_tokens for x in e]),
            "ratelimit_remaining_tokens": whole_numbers([x.ratelimit_remaining_tokens for x in e]),
        }
        refused: dict[int, tuple[Reason, str]] = {}
        for name, given in (
            ("outcome_value_usd", [x.outcome_value_usd for x in e]),
            ("cost_usd", [x.cost_usd for x in e]),
        ):
            numbers[name], bad = amounts(given)
            refused.update((row, (Reason.OUT_OF_RANGE, AMOUNT.format(name))) for row in bad)
        refused.update(_wrong_tokens(numbers))

        status = numbers["status"]
        failed = (status >= 400) | (status == 0)
        typed = texts["error_type"]
        if typed.count(None) != len(typed):
            failed |= np.fromiter(map(bool, typed), dtype=np.bool_, count=len(typed))
        before = len(self._ids)
        for row in np.flatnonzero(failed).tolist():
            if text := e[row].error_message:
                self._messages[before + row] = text

        for name in WHOLE:
            self._numbers.add(name, numbers[name])
        self._numbers.add("failed", failed)
        self._numbers.add("stream", flags([x.stream for x in e]))
        self._numbers.add("latency_ms", real_numbers([x.latency_ms for x in e]))
        self._numbers.add("ttft_ms", real_numbers([x.ttft_ms for x in e]))
        self._numbers.add("retry_after_ms", real_numbers([x.retry_after_ms for x in e]))
        self._ids.extend([x.event_id for x in e])
        return [x.at for x in e], refused

    def finish(self, keep: Filter) -> DecodedRequests:
        """All kept rows."""
        messages = self._messages
        if keep is not None:
            place = np.cumsum(keep) - 1
            messages = {int(place[row]): text for row, text in messages.items() if keep[row]}
        return DecodedRequests(
            event_id=kept(self._ids, keep),
            dims={name: self._texts[name].finish(keep) for name in DIMENSIONS},
            prefix_hash=self._texts["prefix_hash"].finish(keep),
            whole={name: self._numbers.finish(name, np.int64, keep) for name in WHOLE},
            real={name: self._numbers.finish(name, np.float64, keep) for name in REAL},
            stream=self._numbers.finish("stream", np.int8, keep),
            failed=self._numbers.finish("failed", np.bool_, keep),
            messages=messages,
        )


def _wrong_tokens(numbers: dict[str, IntArray]) -> dict[int, tuple[Reason, str]]:
    """Rows whose parts exceed their whole, where both are known."""
    whole, output, reasoning = numbers["input_tokens"], numbers["output_tokens"], numbers["reasoning_tokens"]
    cached = np.maximum(numbers["cache_read_tokens"], 0) + np.maximum(numbers["cache_write_tokens"], 0)
    wrong: dict[int, tuple[Reason, str]] = {}
    for row in np.flatnonzero((output >= 0) & (reasoning > output)).tolist():
        wrong[row] = (Reason.TOKEN_SEMANTICS, REASONING_ABOVE_OUTPUT)
    for row in np.flatnonzero((whole >= 0) & (cached > whole)).tolist():
        wrong[row] = (Reason.TOKEN_SEMANTICS, CACHE_ABOVE_INPUT)
    return wrong
