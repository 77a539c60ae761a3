"""The user's own prices: what wins over what, and what a wrong file says."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from flows.pricing import PriceBook
from flows.pricing import book as book_module
from flows.pricing import names as names_module
from flows.pricing.overlay import (
    Above,
    Alias,
    ContractPrice,
    Discount,
    GpuPrice,
    Overlay,
    TierMultiplier,
    parse_overlay,
)
from schemas.columns import PARTIAL, PRICED, Costs
from schemas.errors import BadSettings
from tests.flows.pricing_events import requests, usd

M = Decimal(1_000_000)
SOURCED = "    source: contract 42\n    checked: 2026-01-02\n"
GPT_4O = {"provider": "openai", "model": "gpt-4o", "input_tokens": 1_000, "output_tokens": 100}
LIST_USD = (Decimal("2.50") * 1_000 + Decimal("10") * 100) / M

DOCS = Path(__file__).resolve().parents[2] / "docs" / "prices.md"

Load = Callable[[str], PriceBook]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def from_text(text: str) -> PriceBook:
        path = tmp_path / "prices.yaml"
        path.write_text(text)
        return PriceBook.load(str(path))

    return from_text


def price(book: PriceBook, **event: Any) -> Costs:
    return book.price(requests([event]))


def test_a_contract_price_takes_the_place_of_the_list_price(load: Load) -> None:
    book = load(
        "prices:\n  - provider: openai\n    model: gpt-4o\n    input_usd_per_mtok: 2.00\n"
        '    cache_read_usd_per_mtok: "0.10"\n    output_usd_per_mtok: 8\n' + SOURCED
    )
    costs = price(book, **GPT_4O, cache_read_tokens=400, reasoning_tokens=40)
    assert usd(costs.input_pico) == Decimal("2.00") * 600 / M
    assert usd(costs.cache_read_pico) == Decimal("0.10") * 400 / M
    assert usd(costs.output_pico) == Decimal("8") * 60 / M
    assert usd(costs.reasoning_pico) == Decimal("8") * 40 / M  # not listed: as output
    assert costs.source.texts() == ["overlay"]


def test_a_contract_price_holds_from_its_first_to_before_its_last_day(load: Load) -> None:
    book = load(
        "prices:\n  - model: gpt-4o*\n    input_usd_per_mtok: 1\n    output_usd_per_mtok: 1\n"
        "    valid_from: 2026-02-01\n    valid_to: 2026-03-01\n" + SOURCED
    )
    days = [
        datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
        datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 3, 1, tzinfo=UTC),
    ]
    costs = book.price(requests([{**GPT_4O, "at": day} for day in days]))
    contract, listed = int(1_100 * M), int(LIST_USD * 10**12)
    assert costs.total_pico.tolist() == [listed, contract, contract, listed]
    assert costs.source.texts() == ["genai-prices", "overlay", "overlay", "genai-prices"]


def test_a_price_may_hold_for_ever(load: Load) -> None:
    book = load(
        "prices:\n  - model: gpt-4o\n    input_usd_per_mtok: 1\n    output_usd_per_mtok: 0\n"
        "    valid_from: 0001-01-01\n    valid_to: 9999-12-31\n" + SOURCED
    )
    assert usd(price(book, **GPT_4O).total_pico) == Decimal("0.001")


def test_a_model_that_nobody_lists_gets_its_price_from_the_overlay(load: Load) -> None:
    book = load("prices:\n  - provider: vllm\n    model: our-llama\n    input_usd_per_mtok: 0.2\n" + SOURCED)
    assert usd(price(book, provider="vllm", model="our-llama", input_tokens=1_000).total_pico) == Decimal("0.0002")
    partial = price(book, provider="vllm", model="our-llama", input_tokens=1_000, output_tokens=1)
    assert partial.status.tolist() == [PARTIAL]


def test_the_last_matching_entry_decides(load: Load) -> None:
    entry = "  - model: {}\n    input_usd_per_mtok: {}\n    output_usd_per_mtok: 0\n" + SOURCED
    book = load("prices:\n" + entry.format('"*"', 9) + entry.format("gpt-4o", 1) + entry.format("gpt-4o-mini", 3))
    assert usd(price(book, **GPT_4O).total_pico) == Decimal(1) * 1_000 / M


def test_prices_may_depend_on_prompt_length(load: Load) -> None:
    book = load(
        "prices:\n  - model: m\n    input_usd_per_mtok: 1\n    output_usd_per_mtok: 5\n    above:\n"
        "      - {input_tokens: 1000, input_usd_per_mtok: 2}\n      - {input_tokens: 2000, output_usd_per_mtok: 7}\n"
        + SOURCED
    )
    totals = [
        usd(price(book, provider="acme", model="m", input_tokens=n, output_tokens=10).total_pico)
        for n in (1_000, 1_001, 2_001)
    ]
    assert totals == [(1 * 1_000 + 50) / M, (2 * 1_001 + 50) / M, (2 * 2_001 + 70) / M]


def test_a_discount_comes_off_the_list_price_of_the_named_team_only(load: Load) -> None:
    book = load("discounts:\n  - provider: openai\n    team: search\n    percent: 12.5\n" + SOURCED)
    assert usd(price(book, **GPT_4O, team="search").total_pico) == LIST_USD * Decimal("0.875")
    assert usd(price(book, **GPT_4O, team="support").total_pico) == LIST_USD
    assert usd(price(book, **GPT_4O).total_pico) == LIST_USD


def test_a_contract_price_is_not_discounted_again(load: Load) -> None:
    book = load(
        "discounts:\n  - percent: 50\n"
        + SOURCED
        + "prices:\n  - model: gpt-4o\n    input_usd_per_mtok: 2\n    output_usd_per_mtok: 0\n"
        + SOURCED
    )
    assert usd(price(book, **GPT_4O).total_pico) == Decimal("0.002")


def test_discount_and_tier_multiply(load: Load) -> None:
    book = load("discounts:\n  - percent: 10\n" + SOURCED)
    batch = price(book, **GPT_4O, service_tier="batch")
    assert usd(batch.total_pico) == LIST_USD * Decimal("0.9") * Decimal("0.5")


def test_a_fee_per_request_follows_the_tier(load: Load) -> None:
    book = load("prices:\n  - model: gpt-4o\n    request_usd: 0.004\n" + SOURCED)
    events = [{**GPT_4O, "input_tokens": 0, "output_tokens": 0, "service_tier": tier} for tier in ("standard", "batch")]
    assert book.price(requests(events)).total_pico.tolist() == [4 * 10**9, 2 * 10**9]
    assert price(book, **GPT_4O).status.tolist() == [PARTIAL]  # the fee is known, its tokens' price is not


@pytest.mark.parametrize("at", [datetime(2026, 3, 5, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)])
def test_ones_own_tier_multiplier_wins_over_listed_and_default_ones(load: Load, at: datetime) -> None:
    book = load("tiers:\n  - {provider: openai, service_tier: flex, multiplier: 0.4, source: c, checked: 2026-01-01}\n")
    event = {"provider": "openai", "model": "o3", "input_tokens": 1_000, "output_tokens": 10, "at": at}
    flex = price(book, **event, service_tier="flex")
    assert usd(flex.total_pico) == usd(price(book, **event).total_pico) * Decimal("0.4")
    assert flex.status.tolist() == [PRICED]


def test_a_contract_price_for_a_tier_is_for_that_tier_only(load: Load) -> None:
    book = load(
        "prices:\n  - model: gpt-4o\n    service_tier: batch\n    input_usd_per_mtok: 1\n    output_usd_per_mtok: 0\n"
        + SOURCED
    )
    assert usd(price(book, **GPT_4O, service_tier="batch").total_pico) == Decimal("0.001")
    assert usd(price(book, **GPT_4O).total_pico) == LIST_USD


def test_a_contract_price_without_a_tier_takes_the_tiers_multiplier(load: Load) -> None:
    book = load("prices:\n  - model: gpt-4o\n    input_usd_per_mtok: 2\n    output_usd_per_mtok: 0\n" + SOURCED)
    assert usd(price(book, **GPT_4O, service_tier="batch").total_pico) == Decimal("0.001")


def test_an_alias_prices_a_deployment_as_its_model(load: Load) -> None:
    book = load("aliases:\n  - {provider: azure, model: prod-chat-*, priced_as: gpt-4o}\n")
    event = {**GPT_4O, "provider": "azure.ai.openai", "model": "prod-chat-eu"}
    assert usd(price(book, **event).total_pico) == LIST_USD
    assert usd(price(book, **{**event, "provider": "openai"}).total_pico * 0) == 0  # elsewhere the name means nothing
    assert price(book, **{**event, "provider": "openai"}).total_pico.tolist() == [-1]


def test_an_alias_may_name_another_provider(load: Load) -> None:
    book = load("aliases:\n  - {model: smart, priced_as: gpt-4o, provider_priced_as: openai}\n")
    assert usd(price(book, **{**GPT_4O, "provider": "gateway", "model": "smart"}).total_pico) == LIST_USD


def test_the_version_follows_the_prices(load: Load) -> None:
    text = "prices:\n  - model: m\n    input_usd_per_mtok: {}\n" + SOURCED
    versions = [PriceBook.load(None).version, load(text.format(1)).version, load(text.format(2)).version]
    assert len(set(versions)) == 3
    assert load(text.format(1)).version == versions[1]


def test_an_empty_overlay_changes_no_price(load: Load) -> None:
    assert usd(price(load("# nothing yet\n"), **GPT_4O).total_pico) == LIST_USD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price: []\n", "unknown field `price` - at `$` (prices.yaml, line 1)"),
        ("prices:\n  - model: m\n    in: 3\n" + SOURCED, "unknown field `in` - at `$.prices[0]` (prices.yaml, line 3)"),
        ("prices:\n  - model: m\n    input_usd_per_mtok: 3\n", "missing required field `source` - at `$.prices[0]`"),
        (
            "prices:\n  - model: m\n    input_usd_per_mtok: cheap\n" + SOURCED,
            "at `$.prices[0].input_usd_per_mtok` (prices.yaml, line 3)",
        ),
        ("prices:\n  - model: m\n" + SOURCED, "expected at least one price - at `$.prices[0]` (prices.yaml, line 2)"),
        (
            "prices:\n  - model: m\n    input_usd_per_mtok: -1\n" + SOURCED,
            "expected a number from 0 to 1000000 - at `$.prices[0].input_usd_per_mtok` (prices.yaml, line 3)",
        ),
        ("prices:\n  - model: m\n    input_usd_per_mtok: .nan\n" + SOURCED, "(prices.yaml, line 3)"),
        ("prices:\n  - model: m\n    input_usd_per_mtok: 1e-13\n" + SOURCED, "expected at most 12 decimal places"),
        (
            "discounts:\n  - percent: 5\n    valid_from: 2026-02-01\n    valid_to: 2026-02-01\n" + SOURCED,
            "`valid_to` must lie after `valid_from` - at `$.discounts[0].valid_to` (prices.yaml, line 4)",
        ),
        ("discounts:\n  - percent: 101\n" + SOURCED, "expected a number from 0 to 100 - at `$.discounts[0].percent`"),
        ("tiers:\n  - multiplier: 1\n    valid_to: soon\n" + SOURCED, "`$.tiers[0].valid_to` (prices.yaml, line 3)"),
        (
            "prices:\n  - model: m\n    input_usd_per_mtok: 1\n    above:\n      - {input_tokens: 5}\n"
            "      - {input_tokens: 5}\n" + SOURCED,
            "ascending - at `$.prices[0].above[1].input_tokens` (prices.yaml, line 6)",
        ),
        ("? [a]\n: 1\n", "a key must be a word (prices.yaml, line 1)"),
        ("prices: &a [*a]\n", "refers to itself"),
        ("[" * 5_000, "nested too deeply"),
        (
            "prices:\n  - model: m\n    request_usd: 1\n    above: [{input_tokens: 99999999999999999999}]\n" + SOURCED,
            "expected at most 9007199254740992 - at `$.prices[0].above[0].input_tokens` (prices.yaml, line 4)",
        ),
        ("gpus: []\ngpus: []\n", "`gpus` stands twice (prices.yaml, line 2)"),
        ("prices: [\n", "not valid YAML"),
        ("- 1\n", "(prices.yaml, line 1)"),
        ("gpus:\n  - {gpu_model: x, usd_per_hour: 1, source: '', checked: 2026-01-01}\n", "`source` must not be empty"),
    ],
)  # fmt: skip
def test_a_wrong_overlay_says_what_and_where(load: Load, text: str, message: str) -> None:
    with pytest.raises(BadSettings) as error:
        load(text)
    assert message in str(error.value)
    assert str(error.value).startswith("prices: ")


def test_a_missing_overlay_says_which_setting_to_check(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"cannot read .*nowhere.yaml .*Check pricing.overlay"):
        PriceBook.load(str(tmp_path / "nowhere.yaml"))


def test_an_overlay_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadSettings, match="not UTF-8"):
        PriceBook.load(str(path))


# ------------------------------------------------------------------ the documentation
def test_the_documented_overlay_is_valid_and_shows_every_field(load: Load) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert isinstance(load(example), PriceBook)
    shown = set(re.findall(r"^[ -]*([a-z_]+):", example, re.MULTILINE)) | set(re.findall(r"[{,] *([a-z_]+):", example))
    entries = (Overlay, ContractPrice, Above, TierMultiplier, Discount, Alias, GpuPrice)
    assert {field for entry in entries for field in entry.__struct_fields__} <= shown


def test_the_examples_in_docstrings_hold() -> None:
    for module in (book_module, names_module):
        assert doctest.testmod(module).attempted > 0
        assert doctest.testmod(module).failed == 0


def test_every_default_price_is_dated_and_sourced() -> None:
    overlay = parse_overlay(
        files("flows.pricing").joinpath("default_overlay.yaml").read_bytes(), "default_overlay.yaml"
    )
    assert overlay.tiers
    assert overlay.gpus
    assert all(entry.source.startswith("https://") for entry in (*overlay.tiers, *overlay.gpus))
    # A default price of one model or team would be somebody's guess at a contract.
    assert [*overlay.prices, *overlay.discounts, *overlay.aliases] == []
