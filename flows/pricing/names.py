"""What producers call providers, models and service tiers, and what the price tables call them."""

from __future__ import annotations

import re
from collections.abc import Iterator

PROVIDERS: dict[str, str] = {
    # OpenTelemetry gen_ai.provider.name, current and former spellings
    "aws.bedrock": "aws",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "x_ai": "x-ai",
    "xai": "x-ai",
    # LiteLLM custom_llm_provider
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "github_copilot": "github-copilot",
    "meta_llama": "meta",
    "moonshot": "moonshotai",
    "text-completion-codestral": "mistral",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "voyage": "voyageai",
    # further common spellings
    "amazon_bedrock": "aws",
    "amazon-bedrock": "aws",
    "fireworks-ai": "fireworks",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistralai": "mistral",
    "together-ai": "together",
}
"""Event spelling to the id of the price data. It comes before genai-prices' own matching, which would take
`az.ai.openai` for OpenAI."""

FAMILIES: tuple[tuple[str, str], ...] = (("vertex_ai", "google"), ("bedrock", "aws"), ("azure", "azure"))
"""Beginnings of names that come in many variants (LiteLLM: `vertex_ai-anthropic_models`, ...)."""

SELF_HOSTED: frozenset[str] = frozenset(
    {"vllm", "hosted_vllm", "sglang", "tgi", "triton", "ollama", "ollama_chat", "llamafile", "lm_studio", "self_hosted",
     "custom", "custom_openai", "openai_like", "openai-compatible", "openai_compatible"}
)  # fmt: skip
"""Providers that sell no tokens; without an overlay price they stay unpriced, whatever the model's name resembles."""

ROUTERS: frozenset[str] = frozenset({"", "litellm", "litellm_proxy", "unknown", "_other"})
"""Providers that name no vendor: the model's prefix, or its name, tells it."""

STANDARD = "standard"

TIERS: dict[str, str] = {
    "": STANDARD,
    "auto": STANDARD,
    "default": STANDARD,
    "on-demand": STANDARD,
    "on_demand": STANDARD,
    "ondemand": STANDARD,
    "standard_only": STANDARD,
    "batches": "batch",
    "data_zone_batch": "batch",
    "datazonebatch": "batch",
    "global_batch": "batch",
    "globalbatch": "batch",
    "datazonestandard": STANDARD,
    "globalstandard": STANDARD,
}
"""Vendor spellings of service tiers to ours."""

_BEDROCK_REGION = re.compile(r"^(us|eu|apac|global|us-gov|jp|au|ca|sa)\.")
_VERSION = re.compile(r"(@[^/]*|(?<=-v\d):\d+)$")
_DATE = re.compile(r"[-@](20\d{2}-?[01]\d-?[0-3]\d)(?=$|-v\d)")


def listed_provider(provider: str) -> str:
    """Our best knowledge of a provider's id in the price data, in lower case."""
    name = provider.strip().lower()
    family = next((listed for start, listed in FAMILIES if name.startswith(start)), name)
    return PROVIDERS.get(name, family)


def tier_of(service_tier: str) -> str:
    """Our name of a service tier."""
    name = service_tier.strip().lower()
    return TIERS.get(name, name)


def models_of(model: str) -> Iterator[str]:
    """Spellings under which a price table may know a model, best first.

    The name as it is; then without path prefixes (`openai/gpt-4o`, ARNs, `publishers/google/models/...`); then without
    a Bedrock region and version suffix; last without the date of a snapshot, because a dated snapshot that has no
    entry of its own costs what its model costs.

    Examples
    --------
    >>> list(models_of("vertex_ai/claude-x@20250929"))
    ['vertex_ai/claude-x@20250929', 'claude-x@20250929', 'vertex_ai/claude-x', 'claude-x']
    """
    name = model.strip().lower()
    parts = name.split("/")
    paths = ["/".join(parts[i:]) for i in range(len(parts)) if parts[i]]
    plain = [_VERSION.sub("", path) for path in paths]
    regional = [_BEDROCK_REGION.sub("", path) for path in plain]
    undated = [_DATE.sub("", path) for path in regional if not path.startswith("ft:")]
    seen: set[str] = set()
    for spelling in (*paths, *plain, *regional, *undated):
        if spelling and spelling not in seen:
            seen.add(spelling)
            yield spelling
