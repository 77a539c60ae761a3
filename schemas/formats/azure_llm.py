"""Format `azure-llm`: the Azure LLM inference traces (github.com/Azure/AzurePublicDataset), CSV.

References
----------
P. Patel et al. (2024), Splitwise: Efficient generative LLM inference using phase splitting, ISCA.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, ClassVar

from msgspec import Struct

from schemas.errors import BadEvent, Reason
from schemas.formats.base import Stream
from schemas.formats.csv_lines import csv_lines, fields, typed
from schemas.request_event import Count, RequestEvent

HEADER = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

MODEL = "azure-llm-2023"
"""Stands for the models behind the trace, which it does not name; no price table knows it."""

_TIMESTAMP = re.compile(r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)(Z|[+-]\d{2}:\d{2})?", re.ASCII)


class _Row(Struct):
    timestamp: str
    context_tokens: Count
    generated_tokens: Count


class AzureLlmFormat:
    """One row is one request: when it was invoked, its input and output tokens.

    The trace gives the time of invocation, not of the end; it is taken as `at`. The files of 2023 name no time zone:
    UTC is assumed. Status 200 is assumed too, since only served requests were published.
    """

    name: ClassVar[str] = "azure-llm"
    stream: ClassVar[Stream] = "requests"

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Lines behind the header `TIMESTAMP,ContextTokens,GeneratedTokens`."""
        return csv_lines(self.name, HEADER, file)

    def decode(self, payload: bytes) -> tuple[RequestEvent]:
        """Decode one row."""
        row = typed(fields(payload), _Row)
        parts = _TIMESTAMP.fullmatch(row.timestamp)
        if parts is None:
            raise BadEvent(Reason.BAD_TIMESTAMP, "TIMESTAMP is not YYYY-MM-DD HH:MM:SS[.fffffff][+HH:MM]")
        day, time, zone = parts.groups()
        return (
            RequestEvent(
                at=f"{day}T{time}{zone or 'Z'}",
                provider="azure.ai.openai",
                model=MODEL,
                status=200,
                input_tokens=row.context_tokens,
                output_tokens=row.generated_tokens,
            ),
        )
