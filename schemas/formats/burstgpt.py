"""Format `burstgpt`: the BurstGPT traces of Azure-hosted ChatGPT and GPT-4 (github.com/HPMLL/BurstGPT), CSV.

References
----------
Y. Wang et al. (2024), BurstGPT: A real-world workload dataset to optimize LLM serving systems, arXiv:2401.17644.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Annotated, BinaryIO, ClassVar

from msgspec import Meta, Struct

from schemas.errors import BadEvent
from schemas.formats.base import Stream
from schemas.formats.csv_lines import fields, header_and_lines, typed, wrong_header
from schemas.request_event import Count, Name, RequestEvent

OLD_HEADER = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")
"""Releases 1.x."""

HEADER = ("Timestamp", "Session ID", "Elapsed time", *OLD_HEADER[1:])
"""Release 2.0."""

TRACE_START_NS = 1_672_531_200 * 10**9
"""2023-01-01T00:00:00Z stands for second 0 of the trace. The publishers give seconds "from 0:00:00 on the first day"
and no date; the date here is ours."""


class _Row(Struct):
    timestamp: Annotated[float, Meta(ge=0, le=1e9)]
    model: Name
    request_tokens: Count
    response_tokens: Count
    total_tokens: Count
    log_type: Name
    session_id: Name | None = None
    elapsed_s: Annotated[float, Meta(ge=0, le=1e9)] | None = None


class BurstGptFormat:
    """One row is one request: when it was sent, its model, input and output tokens.

    A row with 0 response tokens is a failure (so says the publishers' README). The HTTP status of a failure is not
    published; such a row gets status 0, "no answer came", and `error_type` `no_response_tokens`. The trace gives the
    time of sending, which is taken as `at` even where `Elapsed time` is known, so that events keep the file's order.
    """

    name: ClassVar[str] = "burstgpt"
    stream: ClassVar[Stream] = "requests"

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Lines behind the header; where its columns stand in another order, lines are put into the known one."""
        found, lines = header_and_lines(file)
        names = tuple(name.strip() for name in found.split(","))
        if names in (HEADER, OLD_HEADER):
            return lines
        if not set(OLD_HEADER) <= set(names) or len(set(names)) != len(names):
            raise wrong_header(self.name, HEADER, found)
        return _reordered(names, lines)

    def decode(self, payload: bytes) -> tuple[RequestEvent]:
        """Decode one row of 6 columns (releases 1.x) or 8 columns (release 2.0)."""
        values = fields(payload)
        if len(values) == len(OLD_HEADER):
            values = [*values, "", ""]
        elif len(values) == len(HEADER):
            values = [values[0], *values[3:], *values[1:3]]
        row = typed(values, _Row)
        failed = row.response_tokens == 0
        return (
            RequestEvent(
                at=TRACE_START_NS + round(row.timestamp * 1e9),
                provider="azure.ai.openai",
                model=row.model,
                product=row.log_type,
                status=0 if failed else 200,
                error_type="no_response_tokens" if failed else None,
                input_tokens=row.request_tokens,
                output_tokens=row.response_tokens,
                latency_ms=None if row.elapsed_s is None else row.elapsed_s * 1e3,
            ),
        )


def _reordered(names: tuple[str, ...], lines: Iterator[bytes]) -> Iterator[bytes]:
    positions = [names.index(name) if name in names else None for name in HEADER]
    for line in lines:
        try:
            values = fields(line)
        except BadEvent:
            values = []
        if len(values) != len(names):
            yield line  # `decode` refuses it, so that it becomes a dead letter at its place
            continue
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow("" if at is None else values[at] for at in positions)
        yield out.getvalue().encode()
