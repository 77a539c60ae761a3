"""The recorded usage objects of genai-prices' own test set, with the prices that its authors expect.

Each recorded answer was read by every extractor (a provider and API flavour) that can read it; where the provider
lists the model, the expected price of the input and of the output is given. docs/prices.md explains the differences.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows.pricing import PriceBook, genai
from schemas.columns import PARTIAL, PRICED, UNPRICED
from schemas.money import to_pico
from tests.flows.pricing_events import requests, rows

DATA = Path(os.environ.get("TIDEGAUGE_DATA", "../shared/data")) / "payloads" / "provider_usage_objects.jsonl.gz"

FIELDS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}
"""Their names of the counts that our event carries."""

CORRECTED = {("google", "claude-sonnet-4-5-20250929")}
"""Models whose recorded expectation misses the long-context price that the price data has since been given."""


class Case(NamedTuple):
    event: dict[str, Any]
    usage: dict[str, Any]
    expected: tuple[int, int] | None


def cases() -> Iterator[Case]:
    if not DATA.exists():
        pytest.skip(f"recorded usage objects not found at {DATA}; set TIDEGAUGE_DATA")
    with gzip.open(DATA, "rt") as lines:
        for line in lines:
            recorded = json.loads(line)
            for extracted in recorded["extracted"]:
                usage = extracted["usage"]
                counts = {ours: usage[theirs] for theirs, ours in FIELDS.items() if theirs in usage}
                for seller in extracted["extractors"]:
                    event = {"provider": seller["provider_id"], "model": recorded.get("model", ""), **counts}
                    expected = None
                    if "input_price" in seller:
                        expected = to_pico(seller["input_price"]), to_pico(Decimal(seller["output_price"]))
                    yield Case(event, usage, expected)


def difference(case: Case, row: tuple[Any, ...]) -> str | None:
    """The class of a difference, None where both prices are met to the last pico-USD."""
    status, _, plain, read, write, output, reasoning, *_ = row
    inside, outside = plain + read + write, output + reasoning
    assert case.expected is not None
    if status == UNPRICED and case.expected == (0, 0):
        return "listed without a price"
    if status == PARTIAL and not case.usage:
        return "no usage reported"
    if status == PRICED and (inside, outside) == case.expected:
        return None
    if (case.event["provider"], case.event["model"]) in CORRECTED:
        return "expectation corrected since"
    if inside != case.expected[0] and outside == case.expected[1] and case.usage.get("input_audio_tokens"):
        return "audio input"
    if inside == case.expected[0] and outside != case.expected[1] and case.usage.get("output_image_tokens"):
        return "image output"
    return "unexplained"


def test_recorded_usage_costs_what_its_publishers_expect() -> None:
    priced = [case for case in cases() if case.expected is not None]
    found = rows(PriceBook.load(None).price(requests([case.event for case in priced])))
    differences = Counter(difference(case, row) for case, row in zip(priced, found, strict=True))
    assert len(priced) == 1731
    assert differences == {
        None: 1702,
        "audio input": 20,
        "image output": 4,
        "no usage reported": 3,
        "expectation corrected since": 1,
        "listed without a price": 1,
    }


def test_recorded_usage_without_an_expected_price_is_mostly_unpriced_here_too() -> None:
    others = [case for case in cases() if case.expected is None]
    found = rows(PriceBook.load(None).price(requests([case.event for case in others])))
    reasons: Counter[str] = Counter()
    for case, row in zip(others, found, strict=True):
        if row[0] == UNPRICED:
            reasons["unpriced"] += 1
            continue
        assert row[0] == PRICED
        seller = next(p for p in genai.PROVIDERS if p.id == case.event["provider"])
        known = seller.find_model(case.event["model"], all_providers=genai.PROVIDERS)
        reasons["listed since" if known else "vendor prefix removed"] += 1
    assert reasons == {"unpriced": 7655, "vendor prefix removed": 107, "listed since": 52}
