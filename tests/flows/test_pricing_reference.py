"""The vectorised prices equal genai-prices' own calculation, event by event, in Decimal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.pricing import PriceBook
from schemas.columns import PRICED, UNPRICED
from tests.flows.pricing_events import SPRING, at_ns, requests, rows

BOOK = PriceBook.load(None)
PICO = Decimal(10**12)


@cache
def listed() -> list[tuple[str, str]]:
    """All models of the price data, by provider and their own id."""
    return [(provider.id, model.id) for provider in providers for model in provider.models]


def reference(event: dict[str, Any]) -> tuple[Decimal, Decimal, Decimal]:
    """Input side, output side and total in pico-USD from genai-prices."""
    result = calc_price(
        Usage(
            input_tokens=event["input_tokens"],
            cache_read_tokens=event["cache_read_tokens"],
            cache_write_tokens=event["cache_write_tokens"],
            output_tokens=event["output_tokens"],
            output_reasoning_tokens=event["reasoning_tokens"],
        ),
        event["model"],
        provider_id=event["provider"],
        genai_request_timestamp=event["at"],
    )
    return result.input_price * PICO, result.output_price * PICO, result.total_price * PICO


def assert_equal(event: dict[str, Any], row: tuple[Any, ...]) -> None:
    """Compare one priced row; each of up to three parts may have been rounded by half a pico-USD."""
    status, total, plain, read, write, output, reasoning, *_ = row
    assert status == PRICED
    assert total == plain + read + write + output + reasoning
    expected_input, expected_output, expected_total = reference(event)
    fee = expected_total - expected_input - expected_output
    assert abs(plain + read + write - fee - expected_input) <= Decimal("1.5")
    assert abs(output + reasoning - expected_output) <= 1
    if all(part == part.to_integral_value() for part in (expected_input, expected_output)):
        assert abs(total - expected_total) <= 2


@pytest.mark.parametrize("at", [SPRING, datetime(2025, 1, 15, 20, tzinfo=UTC), datetime(2026, 11, 20, 7, tzinfo=UTC)])
@pytest.mark.parametrize("tokens", [(3_000, 1_000, 500, 800, 300), (300_000, 100_000, 0, 7, 7)])
def test_every_listed_model_costs_what_genai_prices_says(at: datetime, tokens: tuple[int, ...]) -> None:
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    events, by_status = [], [0, 0, 0, 0]
    for provider, model in listed():
        event = {"provider": provider, "model": model, "at": at, **dict(zip(names, tokens, strict=True))}
        try:
            events.append((event, reference(event)))
        except LookupError:
            continue  # the id is no spelling that the model's own pattern accepts
    priced = rows(BOOK.price(requests([event for event, _ in events])))
    for (event, (expected_input, expected_output, _)), row in zip(events, priced, strict=True):
        by_status[row[0]] += 1
        if row[0] == PRICED:
            assert_equal(event, row)
        elif row[0] == UNPRICED:
            assert expected_input == expected_output == 0  # priced per hour, per page, ..., or not at all
        else:
            assert (row[1], expected_output) == (pytest.approx(int(expected_input), abs=2), 0)  # embeddings
    assert len(events) > 0.95 * len(listed())
    assert by_status[PRICED] > 0.85 * len(events)
    assert by_status[UNPRICED] < 0.05 * len(events)


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    provider, model = draw(st.sampled_from(POPULAR))
    counts = st.one_of(st.integers(0, 5_000), st.integers(190_000, 300_000), st.integers(0, 10**10))
    read, write, plain = draw(counts), draw(st.sampled_from([0, 0, 1, 4_096])), draw(counts)
    output = draw(st.integers(0, 100_000))
    return {
        "provider": provider,
        "model": model,
        "at": datetime(2024, 6, 1, tzinfo=UTC) + timedelta(minutes=draw(st.integers(0, 1_500_000))),
        "input_tokens": plain + read + write,
        "cache_read_tokens": read,
        "cache_write_tokens": write,
        "output_tokens": output,
        "reasoning_tokens": draw(st.integers(0, output)),
    }


POPULAR = [
    ("openai", "gpt-4o"),
    ("openai", "o3"),
    ("openai", "gpt-5.6-sol"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-opus-4-6"),
    ("google", "gemini-2.5-pro"),
    ("google", "gemini-3.6-flash"),
    ("deepseek", "deepseek-chat"),
    ("deepseek", "deepseek-v4-pro"),
    ("openrouter", "google/gemini-2.5-flash"),
    ("perplexity", "sonar-pro"),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(events(), min_size=1, max_size=25))
def test_blocks_cost_what_their_events_cost_one_by_one(block: list[dict[str, Any]]) -> None:
    for event, row in zip(block, rows(BOOK.price(requests(block))), strict=True):
        assert_equal(event, row)


@settings(max_examples=40, deadline=None)
@given(st.lists(events(), min_size=2, max_size=20), st.integers(1, 19))
def test_where_a_block_is_split_does_not_matter(block: list[dict[str, Any]], cut: int) -> None:
    whole = rows(BOOK.price(requests(block)))
    fresh = PriceBook.load(None)  # nothing cached by the first pass
    assert rows(fresh.price(requests(block[:cut]))) + rows(fresh.price(requests(block[cut:]))) == whole


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 2**53), st.integers(0, 2**53)), min_size=1, max_size=8),
    usd_per_mtok=st.sampled_from(["0.0000001", "0.3333333", "2.5", "999999.999999"]),
)
def test_any_count_at_any_price_is_rounded_exactly_or_refused(
    counts: list[tuple[int, int]], usd_per_mtok: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    overlay = tmp_path_factory.mktemp("prices") / "prices.yaml"
    overlay.write_text(
        f"prices:\n  - {{model: m, input_usd_per_mtok: {usd_per_mtok}, output_usd_per_mtok: {usd_per_mtok},\n"
        "     source: test, checked: 2026-01-01}\n"
    )
    block = [{"provider": "acme", "model": "m", "input_tokens": i, "output_tokens": o} for i, o in counts]
    costs = PriceBook.load(str(overlay)).price(requests(block))
    for row, (i, o) in enumerate(counts):
        expected = [int((Decimal(usd_per_mtok) * 10**6 * n).to_integral_value()) for n in (i, o)]
        if sum(expected) > 10**18:
            assert costs.total_pico[row] == -1
        else:
            assert [costs.input_pico[row], costs.output_pico[row]] == expected
            assert costs.total_pico[row] == sum(expected)


@pytest.mark.parametrize("unused", [0, 400, 70_000])
def test_however_many_values_the_dimensions_hold_the_costs_are_the_same(unused: int) -> None:
    # A lookup table, a sort of combined numbers, and a sort of rows, as the number of combinations grows.
    block = [{"provider": p, "model": m, "input_tokens": n, "output_tokens": 1} for n, (p, m) in enumerate(POPULAR)]
    columns = requests(block)
    for column in columns.dims.values():
        column.values += [f"unused-{i}" for i in range(unused)]
    assert rows(BOOK.price(columns)) == rows(BOOK.price(requests(block)))


def test_the_cache_of_tariffs_is_bounded_and_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.pricing.book._MAX_CACHED", 3)
    block = [{"provider": p, "model": m, "input_tokens": 10, "output_tokens": 1} for p, m in POPULAR]
    book = PriceBook.load(None)
    first, second = rows(book.price(requests(block))), rows(book.price(requests(block)))
    assert first == second == rows(BOOK.price(requests(block)))
    assert len(book._tariffs) <= 3


def test_nanoseconds_before_a_boundary_belong_to_the_old_price() -> None:
    boundary = at_ns(datetime(2025, 6, 10, tzinfo=UTC))
    event = {"provider": "openai", "model": "o3", "input_tokens": 1_000_000}
    costs = BOOK.price(requests([{**event, "at": boundary - 1}, {**event, "at": boundary}]))
    assert np.all(costs.total_pico == [10 * 10**12, 2 * 10**12])
