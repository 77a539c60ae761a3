from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import DeliveryFailed
from schemas.incident import Contributor, Incident
from sinks.slack import DIGEST_FROM, Slack
from sinks.slack_digest import digest, digest_text
from sinks.slack_message import escape, fallback_text, heading, message
from tests.sinks.incidents import NASTY, hostile, incident
from tests.sinks.receiver import Answer, receiver

RAW_ANGLE = re.compile(r"<(?!https?://[^<>|\s]+\|[^<>|\n]*>)")
"""Any `<` that does not begin a link of ours."""


def texts_of(node: Any) -> list[dict[str, Any]]:
    """All text objects of a message."""
    if isinstance(node, list):
        return [t for child in node for t in texts_of(child)]
    if isinstance(node, dict):
        own = [node] if node.get("type") in ("plain_text", "mrkdwn") else []
        return own + [t for child in node.values() for t in texts_of(child)]
    return []


def words(built: dict[str, Any]) -> str:
    return "\n".join(t["text"] for t in texts_of(built["blocks"]))


def assert_within_limits(built: dict[str, Any]) -> None:
    # Limits as Slack publishes them, not as our constants say.
    assert len(orjson.dumps(built).decode()) < 10_000
    assert 0 < len(built["text"]) < 3_000
    blocks = built.get("blocks", [])
    assert len(blocks) <= 50
    for block in blocks:
        if block["type"] == "header":
            assert block["text"]["type"] == "plain_text"
            assert 0 < len(block["text"]["text"].encode("utf-16-le")) // 2 <= 150
        if "fields" in block:
            assert 0 < len(block["fields"]) <= 10
            assert all(0 < len(f["text"]) <= 2_000 for f in block["fields"])
        elif block["type"] == "section":
            assert 0 < len(block["text"]["text"]) <= 3_000
        if block["type"] == "context":
            assert 0 < len(block["elements"]) <= 10


def assert_nothing_injected(built: dict[str, Any]) -> None:
    for text in [*(t["text"] for t in texts_of(built)), built["text"]]:
        assert not RAW_ANGLE.search(text), text
        assert not re.search(r"&(?!amp;|lt;|gt;)", text), text
        assert not re.search(r"@(channel|here|everyone)", text, re.IGNORECASE)
        assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x00-\x09\x0b-\x1f\x7f]", text)
    assert all(t["verbatim"] for t in texts_of(built) if t["type"] == "mrkdwn")


@settings(max_examples=120, deadline=None)
@given(hostile())
def test_hostile_incidents_break_no_limit_and_inject_nothing(it: Incident) -> None:
    built = message(it)
    assert_within_limits(built)
    assert_nothing_injected(built)


@settings(max_examples=40, deadline=None)
@given(st.lists(hostile(), min_size=1, max_size=30))
def test_a_hostile_storm_breaks_no_limit_and_injects_nothing(them: list[Incident]) -> None:
    built = digest(them)
    assert_within_limits(built)
    assert_nothing_injected(built)
    assert_nothing_injected({"text": digest_text(them), "blocks": []})


def test_a_digest_counts_all_and_names_the_worst_first() -> None:
    storm = [incident(n, kind="gpu_idle", severity="info", dims={"node": f"n{n}"}) for n in range(40)]
    storm += [incident(50 + n, 3, "resolved", dims={"team": f"gone{n}"}) for n in range(5)]
    storm += [incident(60, severity="critical", dims={"team": "pay"}, impact_usd_per_hour=5_000.0)]
    text = words(digest(storm))
    assert "46 incidents at once, 41 open, worst critical" in text
    assert "1 critical, 40 info, 5 resolved" in text
    assert text.index("Cost spike: team=pay ($5,000.00 per hour)") < text.index("GPU idle: node=n0")
    assert "And 34 more: 29 × GPU idle, 5 × Cost spike." in text


def test_many_incidents_are_one_message_also_as_plain_text() -> None:
    with receiver() as it:
        slack = Slack("ops", it.url)
        slack.write([incident(n) for n in range(DIGEST_FROM)])
        it.answers = [Answer(400, b"invalid_blocks")]
        slack.write([incident(n) for n in range(DIGEST_FROM)])
        slack.write([incident(n) for n in range(DIGEST_FROM - 1)])
        slack.close()
    assert len(it.requests) == 1 + 2 + DIGEST_FROM - 1
    assert orjson.loads(it.requests[2].body).keys() == {"text", "mrkdwn", "unfurl_links"}
    assert slack.fallbacks == 1


def test_the_check_for_injection_finds_injection() -> None:
    for bad in ("<!channel>", "a & b", "@here", "\u202e"):
        with pytest.raises(AssertionError):
            assert_nothing_injected({"text": bad})


def test_message_says_what_on_call_needs() -> None:
    built = message(incident())
    said = words(built)
    assert_within_limits(built)
    assert built["blocks"][0]["text"]["text"] == (
        "🟠 New, error: Cost spike: team=search, provider=openai, model=gpt-x_1"
    )
    for part in (
        "42.12 USD/h, expected 3.2 USD/h (×13.16)",
        "$38.92 per hour",
        "vendor_quota; retrying helps",
        "2026-03-01 10:20:00 UTC",
        "63 % product=ranker (30 USD/h, expected 1 USD/h)",
        "90 % tokens per request",
        "▂▁▂▂▄█",
        "<https://grafana.example/d/cost?var-team=search&amp;from=1|Dashboard>",
        "cost_spike-000000000001",
    ):
        assert part in said
    assert "Cost spike" in built["text"]
    assert "38.92" in built["text"]


def test_open_updated_and_resolved_look_different() -> None:
    looks = [message(incident(state=s))["blocks"] for s in ("open", "updated", "resolved")]
    headers = [b[0]["text"]["text"] for b in looks]
    assert [h.split(":")[0] for h in headers] == ["🟠 New, error", "🟠 🔁 Update, error", "✅ Resolved"]
    assert "2026-03-01 11:30:00 UTC (1 h 10 min)" in words({"blocks": looks[2]})
    assert "Who carries" not in words({"blocks": looks[2]})


def test_resolved_alone_says_when_it_opened() -> None:
    assert "*Opened*\n2026-03-01 10:20:00 UTC" in words(message(incident(state="resolved")))


def test_severities_have_different_signs() -> None:
    signs = {heading(incident(severity=s))[0] for s in ("info", "warning", "error", "critical")}
    assert len(signs) == 4


def test_five_largest_contributors_are_shown() -> None:
    many = [Contributor(dims={"n": str(i)}, share=i / 100, observed=1, expected=1) for i in range(-3, 20)]
    said = words(message(incident(contributors=many)))
    assert re.findall(r"n=(-?\d+)", said) == ["19", "18", "17", "16", "15"]


def test_unknown_numbers_are_called_unknown() -> None:
    said = words(message(incident(observed=float("nan"), expected=float("inf"), impact_usd_per_hour=float("nan"))))
    assert "*Observed*\nunknown" in said
    assert "nan" not in said


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "/relative", "https://", "https://x.example/" + "a" * 1_000, ""]
)
def test_links_that_lead_nowhere_are_left_out(address: str) -> None:
    assert "Dashboard>" not in words(message(incident(links={"dashboard": address})))


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("limit", [5, 20, 60])
def test_cut_text_never_ends_in_half_an_entity(text: str, limit: int) -> None:
    short = escape(text, limit)
    assert len(short.encode("utf-16-le")) // 2 <= limit
    assert not re.search(r"&(?!amp;|lt;|gt;)", short)


def test_fallback_is_short_plain_text() -> None:
    assert len(fallback_text(incident(summary="&" * 9_000))) <= 600


def test_refused_blocks_are_sent_once_more_as_plain_text() -> None:
    with receiver() as it:
        it.answers = [Answer(400, b"invalid_blocks"), Answer(200)]
        sink = Slack("ops", it.url)
        sink.write([incident()])
        first, second = [orjson.loads(r.body) for r in it.requests]
        assert "blocks" in first
        assert second["text"] == first["text"]
        assert "blocks" not in second
        assert sink.fallbacks == 1
        sink.close()


def test_plain_text_is_tried_only_once() -> None:
    with receiver(Answer(400, b"no_text")) as it:
        with pytest.raises(DeliveryFailed) as caught:
            Slack("ops", it.url).write([incident()])
        assert not caught.value.retryable
        assert len(it.requests) == 2


def test_one_message_a_second() -> None:
    assert Slack("ops", "https://hooks.example/x").traits.rate_per_s == 1.0
