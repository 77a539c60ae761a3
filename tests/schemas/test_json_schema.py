from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas.errors import BadEvent
from schemas.formats import get_format
from schemas.json_schema import documents

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas"
REQUEST: dict[str, Any] = {"at": 1767268800, "provider": "openai", "model": "m", "status": 200}
GPU: dict[str, Any] = {"at": "2026-01-01T12:00:00Z", "node": "n", "gpu_index": 0}


def fits(name: str, event: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(documents()[name]).is_valid(event))


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_published_file_is_up_to_date(name: str) -> None:
    """Write it anew with `tidegauge schema` (or `json.dumps(document, indent=2)`)."""
    text = json.dumps(documents()[name], indent=2, ensure_ascii=False) + "\n"
    assert (PUBLISHED / f"{name}.schema.json").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", sorted(documents()))
def test_every_document_is_itself_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(documents()[name])


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("request", REQUEST),
        ("request", {**REQUEST, "at": "2026-01-01T12:00:00Z", "input_tokens": None, "cost_usd": 0.25, "colour": 1}),
        ("request", {**REQUEST, "cost_usd": "0.25", "stream": True, "error_message": "slow down"}),
        ("request", {**REQUEST, "status": 1000}),
        ("request", {**REQUEST, "status": "200"}),
        ("request", {**REQUEST, "input_tokens": -1}),
        ("request", {**REQUEST, "latency_ms": -0.5}),
        ("request", {**REQUEST, "team": "x" * 513}),
        ("request", {k: v for k, v in REQUEST.items() if k != "model"}),
        ("request", {**REQUEST, "at": None}),
        ("gpu", GPU),
        ("gpu", {**GPU, "util": 0.5, "util_source": "sm_active", "usd_per_hour": 2.5}),
        ("gpu", {**GPU, "util": 1.5}),
        ("gpu", {**GPU, "util_source": "guess"}),
        ("gpu", {"at": 1767268800, "node": "n"}),
        ("gpu", {"at": 1767268800, "node": "n", "gpu_uuid": "GPU-1"}),
    ],
)
def test_schema_and_decoder_agree(name: str, event: dict[str, Any]) -> None:
    try:
        list(get_format(name).decode(json.dumps(event).encode()))
        accepted = True
    except BadEvent:
        accepted = False
    assert fits(f"{name}_event", event) is accepted


def test_an_incident_validates() -> None:
    incident = {
        "incident_id": "i", "revision": 1, "kind": "cost_spike", "severity": "warning", "state": "open",
        "dims": {"team": "a"}, "opened_at": "2026-01-01T12:00:00Z", "detected_at": "2026-01-01T12:01:00Z",
        "observed": 9.0, "expected": 1.0, "unit": "usd_per_hour", "score": 0.9, "summary": "s",
        "contributors": [{"dims": {"model": "m"}, "share": 1.0, "observed": 9.0, "expected": 1.0}],
    }  # fmt: skip
    assert fits("incident", incident)
    assert not fits("incident", {**incident, "severity": "dire"})
    assert not fits("incident", {**incident, "contributors": [{}]})
