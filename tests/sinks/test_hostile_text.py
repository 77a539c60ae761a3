"""Whatever events hold, what receivers get has no markup, mention, link or invisible character from them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.incident import Contributor, Incident
from sinks import build_sink
from tests.sinks.incidents import incident
from tests.sinks.receiver import Answer, Receiver, receiver

ATTACKS = [
    "<!channel>", "<!here|x>", "<@U024BE7LH>", "<#C1>", "<!subteam^S1>", "@channel", "@HERE", "@everyone",
    "&lt;!channel&gt;", "<https://evil.example|click>", "https://evil.example", "[x](https://evil.example)",
    "*b*", "_i_", "~s~", "`c`", "```", "> q", "\n", "\r\n", "\u2028", "\u202e", "\u2066", "\u200b", "\ufeff",
    "\x1b[31m", "\x00", "\x07", "\x9b", "[red]x[/red]", "<script>", "\"", "\\", "'", "{{ .x }}", "${jndi:x}",
    "%s", "é", "💥" * 400, "a" * 3_000, "&", ";", "|",
]  # fmt: skip
HOSTILE = st.lists(st.one_of(st.sampled_from(ATTACKS), st.text(max_size=8)), max_size=6).map("".join)
KEY = "0123456789abcdef0123456789ABCDEF"
JOINER = "\u2060"
"""Ours: it takes the meaning from a word that would be a mention or a link."""


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with receiver() as it:
        yield it


def texts(value: Any) -> Iterator[str]:
    """Every text in a message, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def hostile(words: str, more: str, url: str) -> Incident:
    return incident(
        dims={"team": words, "model": more},
        summary=f"{words} costs more {more}",
        cause=more or None,
        contributors=[Contributor(dims={"product": words}, share=0.5, observed=1.0, expected=2.0)],
        links={"dashboard": f"https://grafana.example/d/x?var-team={url}"},
    )


@pytest.mark.parametrize("kind", ["slack", "pagerduty", "alertmanager"])
@given(words=HOSTILE, more=HOSTILE, url=HOSTILE)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_people_and_their_tools_get_plain_visible_text(
    server: Receiver, kind: str, words: str, more: str, url: str
) -> None:
    server.requests.clear()
    server.default = Answer({"pagerduty": 202}.get(kind, 200))
    sink = build_sink(kind, "ops", url=f"{server.url}/x", secret=KEY if kind == "pagerduty" else None)
    sink.write([hostile(words, more, url)])
    sink.close()
    body = server.requests[0].body
    assert len(body) < 100_000
    for text in texts(json.loads(body)):
        for c in text.replace(JOINER, "").replace("\n", ""):
            assert unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}, (text, c)
    if kind == "slack":
        message = json.loads(body)
        for text in texts(message):
            # The only markup is ours: one link to the dashboard.
            rest = re.sub(r"<https://grafana\.example/[^\s<>|]*\|Dashboard>", "", text)
            assert "<" not in rest, text
            assert ">" not in rest, text
            assert not re.search(r"&(?!amp;|lt;|gt;)", rest), text
            assert not re.search(r"@(channel|here|everyone)", rest, re.IGNORECASE), text
        for block in message["blocks"]:
            for part in [block.get("text"), *block.get("fields", [])]:
                if part and part["type"] == "mrkdwn":
                    assert part["verbatim"] is True
                    inner = re.sub(r"^\*\w+\*\n|<https://grafana[^>]*>|^`[^`]*` latest windows", "", part["text"])
                    assert not re.search(r"[*~`]|://", inner), part["text"]


@given(words=HOSTILE, more=HOSTILE, url=HOSTILE)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_program_gets_the_incident_as_it_is(server: Receiver, words: str, more: str, url: str) -> None:
    server.requests.clear()
    server.default = Answer(204)
    sink = build_sink("webhook", "ops", url=f"{server.url}/x")
    sent = hostile(words, more, url)
    sink.write([sent])
    sink.close()
    body = server.requests[0].body
    assert msgspec.json.decode(body, type=Incident) == sent
    # JSON escapes what a terminal would obey.
    assert not re.search(rb"[\x00-\x1f]", body)
