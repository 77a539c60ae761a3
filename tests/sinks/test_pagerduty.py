from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from schemas.errors import DeliveryFailed
from schemas.incident import Contributor, Incident
from sinks.pagerduty import PagerDuty, dedup_key, event
from sinks.secrets import Secret
from tests.sinks.incidents import hostile, incident
from tests.sinks.receiver import Answer, receiver

KEY = Secret("0123456789abcdef0123456789ABCDEF")


def body(it: Incident) -> dict[str, Any]:
    decoded: dict[str, Any] = orjson.loads(event(it, KEY))
    return decoded


def test_open_and_updated_trigger_and_resolved_resolves() -> None:
    actions = [body(incident(state=s))["event_action"] for s in ("open", "updated", "resolved")]
    assert actions == ["trigger", "trigger", "resolve"]


def test_resolve_reuses_the_dedup_key_of_trigger() -> None:
    keys = {body(incident(revision=r, state=s))["dedup_key"] for r, s in ((1, "open"), (2, "updated"), (3, "resolved"))}
    assert keys == {incident().incident_id}


def test_long_ids_get_different_short_keys() -> None:
    one, two = dedup_key("x" * 300 + "1"), dedup_key("x" * 300 + "2")
    assert one != two
    assert len(one) <= 255


def test_trigger_says_what_where_and_how_bad() -> None:
    sent = body(incident())
    payload = sent["payload"]
    assert sent["routing_key"] == KEY.reveal()
    assert payload["summary"].startswith("Cost spike: Spend of team search")
    assert payload["severity"] == "error"
    assert payload["source"] == "team=search, provider=openai, model=gpt-x_1"
    assert (payload["component"], payload["group"], payload["class"]) == ("gpt-x_1", "search", "cost_spike")
    assert payload["timestamp"] == "2026-03-01T10:23:00Z"
    details = payload["custom_details"]
    assert details["contributors"][0] == "63 % product=ranker (30 USD/h, expected 1 USD/h)"
    assert details["factors"] == ["10 % requests", "90 % tokens_per_request"]
    assert details["impact"] == "$38.92 per hour"
    assert details["cause"] == "vendor_quota; retrying helps"
    assert sent["client_url"] == "https://grafana.example/d/cost?var-team=search&from=1"
    assert [link["text"] for link in sent["links"]] == ["Dashboard", "Runbook"]


@settings(max_examples=80, deadline=None)
@given(hostile())
def test_hostile_incidents_break_no_limit(it: Incident) -> None:
    encoded = event(it, KEY)
    assert len(encoded) <= 512_000
    sent = orjson.loads(encoded)
    assert 0 < len(sent["dedup_key"]) <= 255 or not it.incident_id
    if "payload" in sent:
        assert 0 < len(sent["payload"]["summary"]) <= 1_024
        assert sent["payload"]["source"]
        assert sent["payload"]["severity"] in ("info", "warning", "error", "critical")
        assert all(link["href"].startswith(("http://", "https://")) for link in sent["links"])


def test_too_large_details_are_left_out_and_said_so() -> None:
    big = [Contributor(dims={"d": "x" * 1_000}, share=0.1, observed=1, expected=1) for _ in range(600)]
    encoded = event(incident(contributors=big), KEY)
    assert len(encoded) <= 512_000
    assert "left out" in orjson.loads(encoded)["payload"]["custom_details"]["note"]


def test_success_that_is_not_pagerdutys_is_retried() -> None:
    with receiver(Answer(200, b"<html>please log in</html>")) as it:
        sink = PagerDuty("ops", KEY, url=it.url)
        with pytest.raises(DeliveryFailed) as caught:
            sink.write([incident()])
        assert caught.value.retryable


def test_no_more_than_120_events_in_any_minute() -> None:
    traits = PagerDuty("ops", KEY).traits
    assert traits.rate_per_s is not None
    assert traits.burst + 60 * traits.rate_per_s <= 120
