"""What single requests cost, with the sums written out."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from flows.pricing import PriceBook
from schemas.columns import PARTIAL, PRICED, Costs
from tests.flows.pricing_events import requests, usd

BOOK = PriceBook.load(None)
M = Decimal(1_000_000)


def price(**event: Any) -> Costs:
    return BOOK.price(requests([event]))


GPT_4O = {"provider": "openai", "model": "gpt-4o"}  # $2.50 input, $1.25 cached input, $10 output per million
SONNET = {"provider": "anthropic", "model": "claude-3-7-sonnet-20250219"}  # $3, write $3.75, read $0.30, $15


def test_a_request_costs_its_tokens_times_their_prices() -> None:
    costs = price(**GPT_4O, input_tokens=1_200, output_tokens=300)
    assert usd(costs.input_pico) == Decimal("2.50") * 1_200 / M
    assert usd(costs.output_pico) == Decimal("10.00") * 300 / M
    assert usd(costs.total_pico) == Decimal("0.006")
    assert costs.status.tolist() == [PRICED]
    assert costs.source.texts() == ["genai-prices"]


def test_cached_tokens_are_charged_once_at_the_cached_price() -> None:
    # The usage of LiteLLM issue 6215, where cached tokens were charged twice.
    costs = price(**GPT_4O, input_tokens=2_006, cache_read_tokens=1_920, output_tokens=300)
    assert usd(costs.input_pico) == Decimal("2.50") * (2_006 - 1_920) / M
    assert usd(costs.cache_read_pico) == Decimal("1.25") * 1_920 / M
    assert usd(costs.total_pico) == Decimal("0.005615")


def test_cache_writes_are_charged_once_as_on_the_vendors_bill() -> None:
    # LiteLLM issue 9812: LiteLLM said $0.091311, Anthropic's console 4.614 cents for writes and 0.825 for output.
    costs = price(**SONNET, input_tokens=3 + 12_304, cache_write_tokens=12_304, output_tokens=550)
    assert usd(costs.cache_write_pico) == Decimal("0.04614")
    assert usd(costs.output_pico) == Decimal("0.00825")
    assert usd(costs.total_pico) == Decimal("0.04614") + Decimal("0.00825") + Decimal("3.00") * 3 / M


def test_gemini_cache_hits_are_not_counted_twice() -> None:
    # LiteLLM issue 14849: LiteLLM said $0.7642 for this usage. The prompt is above 200,000 tokens, so all of it costs
    # the long-context price: $2.50 input, $15 output, and today $0.25 for cache reads.
    usage = {"input_tokens": 262_960, "cache_read_tokens": 257_955, "output_tokens": 1_744}
    costs = price(provider="gcp.gemini", model="gemini-2.5-pro", **usage)
    expected = (Decimal("2.50") * 5_005 + Decimal("0.25") * 257_955 + Decimal("15.00") * 1_744) / M
    assert usd(costs.total_pico) == expected == Decimal("0.10316125")


def test_gemini_cache_hits_at_the_prices_of_the_thread(tmp_path: Any) -> None:
    # The same request at the prices with which its reporter recomputed it, $1.25 / $0.625 / $10: $0.1849.
    overlay = tmp_path / "prices.yaml"
    overlay.write_text(
        "prices:\n"
        "  - {provider: google, model: gemini-2.5-pro, input_usd_per_mtok: 1.25, cache_read_usd_per_mtok: 0.625,\n"
        "     output_usd_per_mtok: 10, source: https://github.com/BerriAI/litellm/issues/14849, checked: 2026-11-23}\n"
    )
    event = {"provider": "vertex_ai", "model": "gemini-2.5-pro", "input_tokens": 262_960, "cache_read_tokens": 257_955}
    costs = PriceBook.load(str(overlay)).price(requests([{**event, "output_tokens": 1_744}]))
    assert usd(costs.total_pico) == (Decimal("1.25") * 5_005 + Decimal("0.625") * 257_955 + 10 * 1_744) / M
    assert round(usd(costs.total_pico), 4) == Decimal("0.1849")


def test_reasoning_is_part_of_output_and_shown_apart() -> None:
    costs = price(provider="openai", model="o3", input_tokens=0, output_tokens=1_000, reasoning_tokens=700)
    assert usd(costs.output_pico) == Decimal("8") * 300 / M
    assert usd(costs.reasoning_pico) == Decimal("8") * 700 / M


def test_reasoning_has_its_own_price_where_the_vendor_lists_one() -> None:
    costs = price(provider="perplexity", model="sonar-deep-research", output_tokens=1_000, reasoning_tokens=600)
    assert usd(costs.output_pico) == Decimal("8") * 400 / M
    assert usd(costs.reasoning_pico) == Decimal("3") * 600 / M


def test_cache_tokens_without_a_cache_price_are_charged_as_input() -> None:
    listed = {"provider": "azure", "model": "gpt-3.5-turbo"}
    plain = price(**listed, input_tokens=1_000, output_tokens=0)
    cached = price(**listed, input_tokens=1_000, cache_read_tokens=600, output_tokens=0)
    assert usd(cached.total_pico) == usd(plain.total_pico) > 0
    assert usd(cached.cache_read_pico) * 1_000 == usd(plain.total_pico) * 600
    assert cached.status.tolist() == [PRICED]


@pytest.mark.parametrize(("tokens", "input_usd", "output_usd"), [(200_000, 3, 15), (200_001, 6, Decimal("22.5"))])
def test_a_long_prompt_reprices_the_whole_request(tokens: int, input_usd: Decimal, output_usd: Decimal) -> None:
    costs = price(provider="anthropic", model="claude-sonnet-4-5", input_tokens=tokens, output_tokens=100)
    assert usd(costs.input_pico) == input_usd * tokens / M
    assert usd(costs.output_pico) == output_usd * 100 / M


def test_the_threshold_itself_is_still_the_short_price_beside_longer_prompts() -> None:
    event = {"provider": "anthropic", "model": "claude-sonnet-4-5", "output_tokens": 0}
    costs = BOOK.price(requests([{**event, "input_tokens": n} for n in (200_000, 200_001)]))
    assert costs.total_pico.tolist() == [3_000_000 * 200_000, 6_000_000 * 200_001]


def test_the_same_event_at_two_dates_has_two_prices() -> None:
    event = {"provider": "openai", "model": "o3", "input_tokens": 1_000_000, "output_tokens": 0}
    before = datetime(2025, 6, 9, 23, 59, 59, 999_999, tzinfo=UTC)
    costs = BOOK.price(requests([{**event, "at": before}, {**event, "at": datetime(2025, 6, 10, tzinfo=UTC)}]))
    assert costs.total_pico.tolist() == [10 * 10**12, 2 * 10**12]


def test_time_of_day_prices_follow_the_clock_in_utc() -> None:
    event = {"provider": "deepseek", "model": "deepseek-chat", "input_tokens": 1_000_000}
    clock = [(0, 29), (0, 30), (16, 29), (16, 30)]
    costs = BOOK.price(requests([{**event, "at": datetime(2025, 3, 1, h, m, tzinfo=UTC)} for h, m in clock]))
    assert costs.total_pico.tolist() == [135 * 10**9, 270 * 10**9, 270 * 10**9, 135 * 10**9]


def test_time_of_day_prices_hold_across_midnight_in_one_block() -> None:
    event = {"provider": "deepseek", "model": "deepseek-chat", "input_tokens": 1_000_000}
    days = [datetime(2025, 3, d, h, tzinfo=UTC) for d, h in ((1, 20), (2, 12), (2, 20))]
    costs = BOOK.price(requests([{**event, "at": at} for at in days]))
    assert costs.total_pico.tolist() == [135 * 10**9, 270 * 10**9, 135 * 10**9]


def test_a_fee_per_request_is_part_of_input() -> None:
    costs = price(provider="perplexity", model="sonar", input_tokens=10, output_tokens=10)
    assert usd(costs.input_pico) == Decimal("1") * 10 / M + Decimal("12") / 1_000


def test_a_failure_pays_no_fee_per_request() -> None:
    costs = price(provider="perplexity", model="sonar", status=500, input_tokens=10, output_tokens=0)
    assert usd(costs.total_pico) == Decimal("1") * 10 / M


def test_fine_prices_round_half_to_even_to_whole_picodollars(tmp_path: Any) -> None:
    overlay = tmp_path / "prices.yaml"
    overlay.write_text(
        "prices:\n  - {model: fine, input_usd_per_mtok: 0.0000005, source: contract 7, checked: 2026-01-01}\n"
    )  # half a pico-USD per token
    events = [{"provider": "acme", "model": "fine", "input_tokens": n, "output_tokens": 0} for n in range(6)]
    costs = PriceBook.load(str(overlay)).price(requests(events))
    assert costs.input_pico.tolist() == [0, 0, 1, 2, 2, 2]


# ------------------------------------------------------------------ service tiers
AUTUMN = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("provider", "model", "tier", "at", "factor", "status"),
    [
        ("openai", "gpt-4o", "default", None, "1", PRICED),
        ("openai", "gpt-4o", "batch", None, "0.5", PRICED),
        ("openai", "gpt-4.1", "batch", AUTUMN, "0.5", PRICED),
        ("openai", "o3", "flex", None, "0.5", PRICED),
        ("openai", "o3", "flex", AUTUMN, "0.5", PRICED),
        ("openai", "o3", "priority", AUTUMN, "1.75", PRICED),
        ("openai", "o3", "priority", None, "1", PARTIAL),
        ("azure", "o3", "priority", AUTUMN, "1", PARTIAL),  # Azure does not sell at OpenAI's tier prices
        ("azure.ai.openai", "gpt-4o", "GlobalBatch", None, "0.5", PRICED),
        ("anthropic", "claude-3-7-sonnet-latest", "batch", None, "0.5", PRICED),
        ("anthropic", "claude-opus-5", "fast", AUTUMN, "2", PRICED),
        ("groq", "llama-3.3-70b-versatile", "flex", None, "1", PRICED),
        ("openai", "gpt-4o", "scale", None, "1", PARTIAL),
    ],
)
def test_service_tiers_scale_the_price(
    provider: str, model: str, tier: str, at: datetime | None, factor: str, status: int
) -> None:
    event = {"provider": provider, "model": model, "input_tokens": 1_000, "output_tokens": 100}
    event |= {} if at is None else {"at": at}
    standard, tiered = price(**event), price(**event, service_tier=tier)
    assert usd(tiered.total_pico) == usd(standard.total_pico) * Decimal(factor)
    assert tiered.status.tolist() == [status]


def test_google_batch_leaves_the_cache_price_alone() -> None:
    event = {"provider": "gcp.vertex_ai", "model": "gemini-2.5-pro", "input_tokens": 1_000, "cache_read_tokens": 400}
    standard, batch = price(**event), price(**event, service_tier="batch")
    assert usd(batch.input_pico) == usd(standard.input_pico) / 2
    assert usd(batch.cache_read_pico) == usd(standard.cache_read_pico)
