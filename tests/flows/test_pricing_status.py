"""What is priced, given, partial or unpriced, and what a missed cache would have saved."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from flows.pricing import PriceBook
from schemas.columns import GIVEN, MISSING, PARTIAL, PRICED, UNPRICED, Costs
from tests.flows.pricing_events import requests, usd

BOOK = PriceBook.load(None)
M = Decimal(1_000_000)
GPT_4O = {"provider": "openai", "model": "gpt-4o"}  # $2.50 input, $1.25 cached input, $10 output per million


def price(**event: Any) -> Costs:
    return BOOK.price(requests([event]))


def parts(costs: Costs) -> Decimal:
    return (
        usd(costs.input_pico)
        + usd(costs.cache_read_pico)
        + usd(costs.cache_write_pico)
        + usd(costs.output_pico)
        + usd(costs.reasoning_pico)
    )


def test_an_unknown_model_is_unpriced_and_never_zero() -> None:
    costs = price(provider="openai", model="no-such-model", input_tokens=10, output_tokens=10)
    assert costs.status.tolist() == [UNPRICED]
    assert costs.total_pico.tolist() == [MISSING]
    assert parts(costs) == 0
    assert costs.source.texts() == [""]


def test_a_self_hosted_model_is_unpriced_even_with_a_vendors_name() -> None:
    costs = price(provider="vllm", model="gpt-4o", input_tokens=10, output_tokens=10)
    assert costs.status.tolist() == [UNPRICED]


def test_a_listing_without_any_price_is_unpriced() -> None:
    costs = price(provider="google", model="gemma-3", input_tokens=10, output_tokens=10)
    assert costs.status.tolist() == [UNPRICED]


def test_a_model_listed_as_free_costs_nothing() -> None:
    costs = price(provider="openrouter", model="agentica-org/deepcoder-14b-preview:free", input_tokens=10)
    assert (costs.status.tolist(), costs.total_pico.tolist()) == ([PRICED], [0])


def test_a_token_kind_without_a_price_makes_the_cost_partial() -> None:
    embedding = {"provider": "voyageai", "model": "voyage-3.5"}
    whole = price(**embedding, input_tokens=1_000)
    partial = price(**embedding, input_tokens=1_000, output_tokens=50)
    assert whole.status.tolist() == [PRICED]
    assert partial.status.tolist() == [PARTIAL]
    assert usd(partial.total_pico) == usd(partial.input_pico) == usd(whole.total_pico) > 0


def test_success_without_usage_has_no_known_cost() -> None:
    costs = price(**GPT_4O)
    assert costs.status.tolist() == [PARTIAL]
    assert costs.total_pico.tolist() == [MISSING]


def test_missing_output_of_a_reported_usage_counts_nothing() -> None:
    costs = price(**GPT_4O, input_tokens=1_000)
    assert costs.status.tolist() == [PRICED]
    assert usd(costs.total_pico) == Decimal("0.0025")


@pytest.mark.parametrize("model", ["gpt-4o", "no-such-model"])
@pytest.mark.parametrize("tokens", [{}, {"input_tokens": 0, "output_tokens": 0}])
def test_a_failure_that_used_nothing_costs_nothing(model: str, tokens: dict[str, int]) -> None:
    costs = price(provider="openai", model=model, status=429, **tokens)
    assert costs.status.tolist() == [PRICED]
    assert costs.total_pico.tolist() == [0]


def test_a_failure_is_charged_for_the_tokens_it_reports() -> None:
    costs = price(**GPT_4O, status=500, input_tokens=1_000, output_tokens=10)
    assert usd(costs.total_pico) == Decimal("2.50") * 1_000 / M + Decimal("10.00") * 10 / M


def test_a_failure_that_used_tokens_of_an_unknown_model_is_unpriced() -> None:
    costs = price(provider="openai", model="no-such-model", status=500, input_tokens=1_000)
    assert (costs.status.tolist(), costs.total_pico.tolist()) == ([UNPRICED], [MISSING])


def test_a_cost_given_by_the_producer_is_taken_as_it_is() -> None:
    costs = price(**GPT_4O, input_tokens=1_000, output_tokens=0, cost_given_pico=7)
    assert costs.status.tolist() == [GIVEN]
    assert costs.total_pico.tolist() == [7]
    assert usd(costs.input_pico) == Decimal("0.0025")
    assert costs.source.texts() == ["event"]


def test_a_given_cost_of_an_unknown_model_has_empty_parts() -> None:
    costs = price(provider="acme", model="x", input_tokens=1_000, cost_given_pico=7)
    assert (costs.status.tolist(), costs.total_pico.tolist(), parts(costs)) == ([GIVEN], [7], 0)


def test_absurd_token_counts_neither_overflow_nor_count_as_money() -> None:
    costs = price(**GPT_4O, input_tokens=2**53, output_tokens=2**53)
    assert costs.status.tolist() == [PARTIAL]
    assert costs.total_pico.tolist() == [MISSING]
    assert parts(costs) == 0


def test_large_token_counts_are_exact() -> None:
    costs = price(
        **GPT_4O, input_tokens=10**11, output_tokens=3
    )  # 250,000 USD: far beyond int64 if computed carelessly
    assert usd(costs.total_pico) == Decimal("2.50") * 10**11 / M + Decimal("10.00") * 3 / M


def test_contradicting_counts_never_make_a_negative_part() -> None:
    costs = price(**GPT_4O, input_tokens=10, cache_read_tokens=30, output_tokens=5, reasoning_tokens=9)
    assert usd(costs.input_pico) == usd(costs.output_pico) == 0
    assert usd(costs.cache_read_pico) == Decimal("1.25") * 30 / M
    assert usd(costs.reasoning_pico) == Decimal("10.00") * 9 / M


# ------------------------------------------------------------------ missed cache
@pytest.mark.parametrize(
    ("fields", "missed"),
    [
        ({}, 900),
        ({"cache_read_tokens": 0}, 900),
        ({"cache_read_tokens": 400}, 500),
        ({"cache_read_tokens": 950}, 0),
        ({"input_tokens": 600}, 600),
        ({"prefix_repeated": False}, 0),
        ({"status": 500}, 0),
        ({"prefix_tokens": MISSING}, 0),
    ],
)
def test_a_repeated_prefix_not_read_from_cache_is_a_missed_saving(fields: dict[str, Any], missed: int) -> None:
    event = {**GPT_4O, "input_tokens": 1_000, "output_tokens": 1, "prefix_tokens": 900, "prefix_repeated": True}
    costs = price(**{**event, **fields})
    assert usd(costs.missed_cache_pico) == (Decimal("2.50") - Decimal("1.25")) * missed / M


def test_a_model_without_a_cache_price_misses_no_saving() -> None:
    costs = price(
        provider="azure", model="gpt-3.5-turbo", input_tokens=1_000, prefix_tokens=900, prefix_repeated=True
    )  # fmt: skip
    assert costs.missed_cache_pico.tolist() == [0]


def test_an_empty_block_has_no_costs() -> None:
    costs = BOOK.price(requests([]))
    assert len(costs.total_pico) == len(costs.source.codes) == 0
    assert costs.total_pico.dtype == np.int64
