"""JSON Schema of what goes in and out: request events, GPU events, incidents."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.gpu_event import GpuEvent
from schemas.incident import Incident
from schemas.request_event import RequestEvent

DRAFT = "https://json-schema.org/draft/2020-12/schema"

AT: dict[str, Any] = {
    "description": (
        "Event time: RFC 3339 with a zone, or a number since the epoch whose unit follows from its magnitude: below "
        "1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds. Times outside "
        "2000-01-01 .. 2100-01-01 are refused."
    ),
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number", "exclusiveMinimum": 0}],
    "examples": ["2026-01-31T12:00:00.5Z", 1769860800, 1769860800500],
}


def documents() -> dict[str, dict[str, Any]]:
    """Every published schema by name: `request_event`, `gpu_event`, `incident`.

    Unknown fields are allowed everywhere; of duplicate keys the last one wins.
    """
    request, gpu = _document(RequestEvent), _document(GpuEvent)
    for event in (request, gpu):
        event["properties"]["at"] = AT
    gpu["anyOf"] = [{"required": ["gpu_uuid"]}, {"required": ["gpu_index"]}]
    for document, names in ((request, ("cost_usd", "outcome_value_usd")), (gpu, ("usd_per_hour",))):
        for name in names:
            document["properties"][name] = _amount()
    return {"gpu_event": gpu, "incident": _document(Incident), "request_event": request}


def _amount() -> dict[str, Any]:
    """US dollars: a number, or a decimal text for those who fear their JSON library's floats."""
    return {
        "description": "US dollars, 0 to 1,000,000, as a number or as text.",
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": 1_000_000},
            {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},
            {"type": "null"},
        ],
        "default": None,
    }


def _document(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """One schema with its root in place instead of behind a reference, as readers and generators expect."""
    (reference,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    root = components.pop(kind.__name__)
    assert reference == {"$ref": f"#/$defs/{kind.__name__}"}
    document: dict[str, Any] = {"$schema": DRAFT, **root}
    if components:
        document["$defs"] = components
    return document
