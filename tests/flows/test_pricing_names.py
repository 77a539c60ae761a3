"""Providers and models are found under every name that producers use for them."""

from __future__ import annotations

import pytest

from flows.pricing import PriceBook, genai, names
from schemas.columns import PRICED, UNPRICED
from tests.flows.pricing_events import requests

BOOK = PriceBook.load(None)


@pytest.mark.parametrize(
    ("spelling", "listed"),
    [
        ("openai", "openai"),
        ("OpenAI ", "openai"),
        ("azure.ai.openai", "azure"),
        ("azure.ai.inference", "azure"),
        ("az.ai.openai", "azure"),
        ("azure", "azure"),
        ("aws.bedrock", "aws"),
        ("bedrock", "aws"),
        ("bedrock_converse", "aws"),
        ("gcp.vertex_ai", "google"),
        ("gcp.gemini", "google"),
        ("vertex_ai-anthropic_models", "google"),
        ("gemini", "google"),
        ("mistral_ai", "mistral"),
        ("x_ai", "x-ai"),
        ("xai", "x-ai"),
        ("moonshot_ai", "moonshotai"),
        ("fireworks_ai", "fireworks"),
        ("together_ai", "together"),
        ("text-completion-openai", "openai"),
        ("hosted_vllm", "hosted_vllm"),
        ("openai_compatible", "openai_compatible"),
        ("ibm.watsonx.ai", "ibm.watsonx.ai"),
    ],
)
def test_spellings_of_providers_lead_to_the_one_that_is_listed(spelling: str, listed: str) -> None:
    assert genai.provider_id(spelling) == listed


def test_every_alias_names_a_listed_provider() -> None:
    assert set(names.PROVIDERS.values()) <= {provider.id for provider in genai.PROVIDERS}


@pytest.mark.parametrize(
    ("provider", "model", "listed"),
    [
        ("openai", "GPT-4o", "gpt-4o"),
        ("openai", "openai/gpt-4o", "gpt-4o"),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-4o-20241120", "gpt-4o"),
        ("openai", "gpt-4o-mini-2031-01-01", "gpt-4o-mini"),  # a snapshot of the future
        ("azure", "gpt-4o", "gpt-4o"),
        ("litellm", "openai/gpt-4o", "gpt-4o"),
        ("", "azure/gpt-4o", "gpt-4o"),
        ("litellm", "bedrock/amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        ("", "claude-3-7-sonnet-latest", "claude-3-7-sonnet-latest"),
        ("gcp.gemini", "models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gcp.vertex_ai", "claude-3-7-sonnet@20250219", "claude-3-7-sonnet"),
        ("openrouter", "openrouter/openai/gpt-4o", "openai/gpt-4o"),
    ],
)
def test_spellings_of_models_lead_to_the_one_that_is_listed(provider: str, model: str, listed: str) -> None:
    found = genai.find(provider, model)
    assert found is not None
    assert found.model.id == listed


@pytest.mark.parametrize(
    "model",
    [
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ],
)
def test_bedrock_profiles_and_arns_cost_the_regional_price(model: str) -> None:
    regional = genai.find("aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0")
    assert regional is not None
    assert "claude-sonnet-4-5" in regional.model.id
    assert genai.find("aws.bedrock", model) == regional


def test_fine_tuned_models_are_never_priced_as_their_base() -> None:
    found = genai.find("openai", "ft:gpt-4.1-2025-04-14:acme::abc")
    assert found is None or found.model.id.startswith("ft:")


@pytest.mark.parametrize("model", ["", " ", "/", "//", "@", "a/b/c/d", "ft:", "*", "[", "🦙" * 500, "-20250230"])
def test_odd_names_are_unpriced_and_harmless(model: str) -> None:
    events = [{"provider": p, "model": model, "input_tokens": 1} for p in ("", "openai", "openrouter", "🦙")]
    assert set(BOOK.price(requests(events)).status.tolist()) == {UNPRICED}


def test_the_model_that_answered_is_what_is_billed() -> None:
    answered = {"provider": "openai", "model": "gpt-4o", "model_served": "gpt-4o-mini", "input_tokens": 1_000_000}
    unknown = {**answered, "model_served": "build-7f3a"}
    alias = {**answered, "model": "our-default"}
    costs = BOOK.price(requests([answered, unknown, alias]))
    assert costs.total_pico.tolist() == [150 * 10**9, 2_500 * 10**9, 150 * 10**9]
    assert costs.status.tolist() == [PRICED] * 3
