"""Format `llmperf`: calls of the LLMPerf leaderboard (github.com/ray-project/llmperf-leaderboard) flattened to CSV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, BinaryIO, ClassVar

from msgspec import Meta, Struct

from schemas.errors import BadEvent
from schemas.formats.base import Stream
from schemas.formats.csv_lines import csv_lines, fields, typed
from schemas.request_event import Count, RequestEvent

HEADER = (
    "provider", "model", "request_no", "error_code", "error_msg", "ttft_s", "end_to_end_latency_s",
    "inter_token_latency_s", "input_tokens", "output_tokens",
)  # fmt: skip

TRACE_START_NS = 1_702_944_000 * 10**9
"""2023-12-19T00:00:00Z, the day of the benchmark; request 0 of every provider and model is put there."""

SPACING_NS = 10**9
"""Synthetic: request n is put n seconds after the first. No times are published; five calls at once that take some
seconds each end about one a second."""

PROVIDERS = {"bedrock": "aws.bedrock"}
"""OpenTelemetry's name where it has one; all other names are kept."""

TOO_SHORT = -100
"""The provider answered with fewer tokens than asked for."""

_MESSAGE_CHARS = 8192

_ShortName = Annotated[str, Meta(max_length=200)]
_Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class _Row(Struct, kw_only=True):
    provider: _ShortName
    model: _ShortName
    request_no: Annotated[int, Meta(ge=0, le=10**9)]
    error_code: Annotated[float, Meta(ge=-1e6, le=1e6)] | None = None
    error_msg: str | None = None
    ttft_s: _Seconds | None = None
    end_to_end_latency_s: _Seconds | None = None
    inter_token_latency_s: _Seconds | None = None
    input_tokens: Count
    output_tokens: Count


class LlmPerfFormat:
    """One row is one benchmark call to a hosted endpoint, with times, tokens and errors as published.

    Errors: 429 is the status; -100 (answer shorter than asked) has status 200 and `error_type` `output_too_short`; -1
    and other codes that are no HTTP status have status 0 and `error_type` `benchmark_error`. Times of failed calls that
    read 0 were not measured and stay `None`. Token counts are kept as published, also on failed calls.
    """

    name: ClassVar[str] = "llmperf"
    stream: ClassVar[Stream] = "requests"

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Lines behind the header, ordered by `request_no`, since the providers were called side by side.

        The whole file is held in memory meanwhile. A line whose number cannot be read keeps its neighbour's place.
        """
        lines = csv_lines(self.name, HEADER, file)
        keyed: list[tuple[int, bytes]] = []
        request_no = 0
        for line in lines:
            # what cannot be read is passed on: `decode` refuses it, so that it becomes a dead letter at its place
            with suppress(BadEvent):
                request_no = typed(fields(line), _Row).request_no
            keyed.append((request_no, line))
        keyed.sort(key=lambda entry: entry[0])
        return (line for _, line in keyed)

    def decode(self, payload: bytes) -> tuple[RequestEvent]:
        """Decode one row."""
        row = typed(fields(payload), _Row)
        status, error_type = _error(row.error_code)
        failed = row.error_code is not None
        return (
            RequestEvent(
                at=TRACE_START_NS + row.request_no * SPACING_NS,
                event_id=f"llmperf-{row.provider}-{row.model}-{row.request_no}",
                provider=PROVIDERS.get(row.provider, row.provider),
                model=row.model,
                status=status,
                error_type=error_type,
                error_code=None if row.error_code is None else str(int(row.error_code)),
                error_message=None if row.error_msg is None else row.error_msg[:_MESSAGE_CHARS],
                input_tokens=row.input_tokens,
                output_tokens=row.output_tokens,
                latency_ms=_milliseconds(row.end_to_end_latency_s, failed),
                ttft_ms=_milliseconds(row.ttft_s, failed),
            ),
        )


def _error(code: float | None) -> tuple[int, str | None]:
    if code is None:
        return 200, None
    if code == TOO_SHORT:
        return 200, "output_too_short"
    if 400 <= code <= 599:
        return int(code), None
    return 0, "benchmark_error"


def _milliseconds(seconds: float | None, failed: bool) -> float | None:
    if seconds is None or (failed and seconds == 0):
        return None
    return seconds * 1e3
