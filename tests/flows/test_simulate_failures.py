"""Simulated failures read as the cause they stand for, and the documentation names every event."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.causes import classify
from flows.simulate.failures import FAILURES, Failure, everyday
from flows.simulate.incidents import HOWS
from flows.simulate.models import MODELS

DOCS = Path(__file__).parents[2] / "docs" / "simulator.md"


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f"{f.provider}-{f.status}-{f.cause.label}")
def test_a_failure_reads_as_its_cause(failure: Failure) -> None:
    provider = failure.provider or "openai"
    assert classify(failure.status, failure.error_type, failure.error_code, failure.message, provider) is failure.cause


@pytest.mark.parametrize("provider", sorted({m.provider for m in MODELS}))
def test_every_provider_has_everyday_failures(provider: str) -> None:
    numbers, shares = everyday(provider)
    assert len(numbers) >= 3
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert all(FAILURES[n - 1].provider in ("", provider) for n in numbers)


@pytest.mark.parametrize("kind", sorted(HOWS))
def test_every_kind_and_way_is_documented(kind: str) -> None:
    text = DOCS.read_text()
    assert f"`{kind}`" in text
    assert all(f"`{how}`" in text for how in HOWS[kind])
