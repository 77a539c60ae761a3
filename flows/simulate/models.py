"""The models that the simulated company calls, and how fast and how far their providers let them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CacheStyle = Literal["read", "read_write", "none"]


@dataclass(frozen=True, slots=True)
class Model:
    """One model at one provider.

    Parameters
    ----------
    provider
        OpenTelemetry `gen_ai.provider.name`.
    name
        As a client asks for it.
    ttft_ms, ms_per_token
        Median time to first token of a short prompt, and time per output token.
    reasoning
        Share of output tokens spent on reasoning; 0 for models that do not reason.
    cache
        What the provider reports of its prompt cache: reads only, reads and writes, or nothing.
    limits
        Requests and tokens per minute of its rate-limit headers, where it sends them.
    region, deployment
        As the events name them, empty where the provider has none.
    heavier, successor, newcomer
        Models that a switch can lead to: a dearer one, one of the same price, and one that nobody has a price for.
    """

    provider: str
    name: str
    ttft_ms: float
    ms_per_token: float
    reasoning: float = 0.0
    cache: CacheStyle = "read"
    limits: tuple[int, int] | None = None
    region: str = ""
    deployment: str = ""
    heavier: str = ""
    successor: str = ""
    newcomer: str = "atlas-2-preview"


_OPENAI_SMALL, _OPENAI_LARGE = (30_000, 150_000_000), (10_000, 30_000_000)
"""Limits as recorded in OpenAI's `x-ratelimit-limit-*` headers."""

_ANTHROPIC = (4_000, 2_400_000)
"""Limits as recorded in Anthropic's `anthropic-ratelimit-*-limit` headers."""

MODELS: tuple[Model, ...] = (
    Model("openai", "gpt-5", 900, 11, 0.45, limits=_OPENAI_LARGE, heavier="gpt-5-pro", successor="gpt-5.1"),
    Model("openai", "gpt-5-mini", 650, 7, 0.35, limits=_OPENAI_SMALL, heavier="gpt-5"),
    Model("openai", "gpt-4.1-mini", 420, 8, limits=_OPENAI_SMALL, heavier="gpt-4.1"),
    Model("openai", "text-embedding-3-small", 90, 0, cache="none", limits=(10_000, 50_000_000)),
    Model(
        "anthropic", "claude-opus-4-7", 1_500, 19, cache="read_write", limits=_ANTHROPIC,
        heavier="claude-opus-4-1", successor="claude-opus-4-8",
    ),
    Model(
        "anthropic", "claude-sonnet-4-5", 1_000, 14, cache="read_write", limits=_ANTHROPIC,
        heavier="claude-opus-4-1", successor="claude-sonnet-4-6",
    ),
    Model(
        "anthropic", "claude-haiku-4-5", 520, 6, cache="read_write", limits=_ANTHROPIC, heavier="claude-opus-4-7",
    ),
    Model(
        "aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 1_200, 15, cache="read_write",
        region="us-east-1", heavier="us.anthropic.claude-opus-4-5-20251101-v1:0",
    ),
    Model(
        "aws.bedrock", "amazon.nova-lite-v1:0", 380, 5, cache="none", region="us-east-1",
        heavier="amazon.nova-pro-v1:0",
    ),
    Model(
        "azure.ai.openai", "gpt-5-mini", 700, 8, 0.35, limits=(3_000, 2_500_000), region="swedencentral",
        deployment="gpt5mini-prod", heavier="gpt-5",
    ),
    Model(
        "azure.ai.openai", "gpt-4.1-mini", 480, 9, limits=(3_000, 2_500_000), region="swedencentral",
        deployment="gpt41mini-batch", heavier="gpt-4.1",
    ),
    Model("gcp.vertex_ai", "gemini-2.5-flash", 480, 5, 0.2, region="europe-west4", heavier="gemini-2.5-pro"),
    Model("gcp.vertex_ai", "gemini-2.5-pro", 1_600, 9, 0.4, region="europe-west4", heavier="gemini-3.1-pro-preview"),
    Model("gcp.vertex_ai", "gemini-2.5-flash-lite", 330, 4, region="us-central1", heavier="gemini-2.5-flash"),
    Model("vllm", "llama-3.3-70b-instruct", 260, 24, region="dc-fra1", deployment="llama-70b"),
    Model("vllm", "qwen3-8b", 90, 9, region="dc-fra1", deployment="qwen-8b"),
)  # fmt: skip
"""Names and prices are those of genai-prices; times are typical orders of magnitude, not measurements."""

BY_NAME: dict[tuple[str, str], Model] = {(m.provider, m.name): m for m in MODELS}
"""Models by provider and name."""

PRICE_PROVIDERS: dict[str, str] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "aws.bedrock": "aws",
    "azure.ai.openai": "azure",
    "gcp.vertex_ai": "google",
}
"""Provider ids of genai-prices, for the producers that report their own cost. Self-hosted models are not in it."""
