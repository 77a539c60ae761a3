"""What the flow accepts, ClickHouse takes: a row that it refused would hold up its table for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.gpu_event import GpuEvent
from schemas.request_event import RequestEvent
from sinks.clickhouse.loader import SETTINGS
from tests.fuzz import whole
from tests.fuzz.seeds import ODD, corpus, samples

T0 = 1_767_268_800
EXTREMES: tuple[Any, ...] = (
    0, 1, 999, 1000, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**53, -1, 0.0, -0.0, 5e-324, 1e12, 1e15, 1e308, 1e-300,
    "1000000", "999999.9999999999999", "0.0000000000004", "", "\x00", "\u202e\U0010ffff", "x" * 512, "1e-400", True,
)  # fmt: skip


def extremes(base: dict[str, Any], fields: tuple[str, ...]) -> list[bytes]:
    """Every field at every extreme, one at a time, then the first and last moments that are believed."""
    events = [{**base, name: value} for name in fields if name != "at" for value in EXTREMES]
    for at in ("2000-01-01T00:00:00Z", "2099-12-31T23:59:59.999999999Z"):
        events.append({**base, "at": at})
    return [json.dumps(event).encode() for event in events]


def taken(client: Any, outcome: whole.Outcome) -> None:
    """Insert all rows as the writer does, and count them."""
    for name, table in outcome.encoded().items():
        client.insert_arrow(name, table, settings={k: v for k, v in SETTINGS.items() if k != "async_insert"})
        assert client.query(f"SELECT count() FROM {name}").result_rows[0][0] >= 1


@pytest.mark.parametrize("stream", ["request", "gpu"])
def test_every_extreme_that_is_accepted_can_be_stored(chdb_client: Any, stream: str) -> None:
    if stream == "request":
        base: dict[str, Any] = {"at": T0, "provider": "openai", "model": "gpt-4o", "status": 200, "input_tokens": 9}
        payloads = extremes(base, RequestEvent.__struct_fields__)
        payloads += extremes({**base, "status": 500, "input_tokens": 2**53}, RequestEvent.__struct_fields__)
    else:
        base = {"at": T0, "node": "n", "gpu_uuid": "g", "util": 0.5, "xid": 1}
        payloads = extremes(base, GpuEvent.__struct_fields__)
    outcome = whole.run(stream, [payloads])
    assert outcome.tables.keys() >= {"dead_letters"}
    assert 100 < len(outcome.dead) < len(payloads)
    taken(chdb_client, outcome)


@pytest.mark.parametrize("name", ["request", "gpu"])
def test_past_findings_can_be_stored(chdb_client: Any, name: str) -> None:
    taken(chdb_client, whole.run(name, [[*samples(name), *corpus(name), *ODD]]))
