"""The LLM request event: one finished call, as its gateway or application reports it."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=2**53)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]
Name = Annotated[str, Meta(max_length=512)]
Usd = Decimal
"""US dollars, 0 to 1,000,000; the range is checked when columns are built."""


class RequestEvent(Struct, frozen=True, kw_only=True, gc=False):
    """One finished LLM call.

    Old producers stay readable: a new field needs a default, and no field is ever renamed or given another type.
    Unknown fields are ignored. Prompt and completion text has no field, so it is never stored. `None` means "not
    reported", which is not the same as 0.
    """

    at: str | int | float
    """When the call ended: RFC 3339, or epoch seconds, milliseconds, microseconds or nanoseconds as a number."""
    provider: Name
    """OpenTelemetry `gen_ai.provider.name`, such as `openai`, `anthropic`, `aws.bedrock`."""
    model: Name
    """Model asked for."""
    status: Annotated[int, Meta(ge=0, le=999)]
    """HTTP status of the answer; 0 where no answer came."""
    event_id: Name | None = None
    """Identity; topic/partition/offset where absent."""
    team: Name | None = None
    product: Name | None = None
    user_id: Name | None = None
    api_key_id: Name | None = None
    """Identity (never the secret) of the API key."""
    environment: Name | None = None
    model_served: Name | None = None
    """Model that answered, where it differs (aliases, routing)."""
    region: Name | None = None
    deployment: Name | None = None
    operation: Name | None = None
    """OpenTelemetry `gen_ai.operation.name`: chat, text_completion, embeddings, ..."""
    stream: bool | None = None
    input_tokens: Count | None = None
    """Includes tokens read from and written to the prompt cache."""
    output_tokens: Count | None = None
    """Includes reasoning tokens."""
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    latency_ms: Milliseconds | None = None
    ttft_ms: Milliseconds | None = None
    """Time to first token."""
    error_type: Name | None = None
    error_code: Name | None = None
    error_message: Annotated[str, Meta(max_length=8192)] | None = None
    """Used for the cause verdict only; it is truncated and redacted before it is stored."""
    finish_reason: Name | None = None
    attempt: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """1 is the first try."""
    retry_after_ms: Milliseconds | None = None
    ratelimit_limit_requests: Count | None = None
    ratelimit_remaining_requests: Count | None = None
    ratelimit_limit_tokens: Count | None = None
    ratelimit_remaining_tokens: Count | None = None
    service_tier: Name | None = None
    """`standard`, `batch`, `flex`, `priority`: prices differ."""
    prompt_name: Name | None = None
    prompt_version: Name | None = None
    prefix_hash: Name | None = None
    """Hash of the prompt's reusable prefix, for missed-cache savings."""
    prefix_tokens: Count | None = None
    """Tokens in that prefix."""
    cost_usd: Usd | None = None
    """Cost as the producer knows it; taken as given where present."""
    outcome: Name | None = None
    """What the request brought: `resolved`, `accepted`, ..."""
    outcome_value_usd: Usd | None = None
