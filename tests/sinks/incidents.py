"""Realistic incidents for the tests of sinks."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from schemas.incident import KINDS, SEVERITIES, Contributor, Factor, Incident


def incident(number: int = 1, revision: int = 1, state: str = "open", **changes: Any) -> Incident:
    """A cost spike of one team, as the dataflow would describe it."""
    fields: dict[str, Any] = {
        "incident_id": f"cost_spike-{number:012x}",
        "revision": revision,
        "kind": "cost_spike",
        "severity": "error",
        "state": state,
        "dims": {"team": "search", "provider": "openai", "model": "gpt-x_1"},
        "opened_at": "2026-03-01T10:20:00Z",
        "detected_at": "2026-03-01T10:23:00Z",
        "resolved_at": "2026-03-01T11:30:00Z" if state == "resolved" else None,
        "observed": 42.125,
        "expected": 3.2,
        "unit": "USD/h",
        "score": 0.97,
        "impact_usd_per_hour": 38.925,
        "cause": "vendor_quota",
        "retry_helps": True,
        "summary": "Spend of team search on gpt-x_1 is 42 USD/h instead of 3.2 since 10:20, mostly longer prompts.",
        "contributors": [
            Contributor(dims={"product": "ranker"}, share=0.63, observed=30.0, expected=1.0),
            Contributor(dims={"product": "chat"}, share=0.30, observed=12.0, expected=1.2),
            Contributor(dims={"product": "batch"}, share=-0.02, observed=0.1, expected=1.0),
        ],
        "factors": [Factor(name="requests", share=0.1), Factor(name="tokens_per_request", share=0.9)],
        "sparkline": [3.1, 3.0, 3.3, 3.2, 20.0, 42.1],
        "related": ["gpu_saturation-00ff"],
        "links": {
            "dashboard": "https://grafana.example/d/cost?var-team=search&from=1",
            "runbook": "https://wiki.example/r",
        },
    }
    return Incident(**{**fields, **changes})


NASTY = [
    "<!channel> <!here|x> <@U123> <#C1> <https://evil.example|Dashboard>",
    "@here @channel @everyone",
    "&lt;!channel&gt; &amp; & < >",
    "*bold* _it_ ~no~ `code` ```block``` > quote",
    "\u202egnp.exe \u2066x\u2069 \u200b",
    "\x00\x01\x1b[31m\r\n\u2028line",
    "😀" * 600,
    "&" * 2_000,
    '"\\' * 1_500,
    "\n" * 50,
    "{{ .Labels }} $(id) ${HOME}",
    "\ud800 lone surrogate"[1:],
]
texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=400))
numbers = st.one_of(st.floats(), st.floats(0, 1e6))


@st.composite
def hostile(draw: st.DrawFn) -> Incident:
    """Incidents whose every text was written by an attacker, and whose numbers may be none."""
    dims = st.dictionaries(texts, texts, max_size=8)
    contributors = st.lists(
        st.builds(Contributor, dims=dims, share=numbers, observed=numbers, expected=numbers), max_size=8
    )
    return incident(
        kind=draw(st.sampled_from(KINDS)),
        severity=draw(st.sampled_from(SEVERITIES)),
        state=draw(st.sampled_from(["open", "updated", "resolved"])),
        incident_id=draw(texts),
        dims=draw(dims),
        unit=draw(texts),
        cause=draw(st.none() | texts),
        retry_helps=draw(st.sampled_from([None, True, False])),
        summary=draw(texts),
        observed=draw(numbers),
        expected=draw(numbers),
        score=draw(numbers),
        impact_usd_per_hour=draw(st.none() | numbers),
        opened_at=draw(st.sampled_from(["2026-03-01T10:20:00Z"]) | texts),
        contributors=draw(contributors),
        factors=draw(st.lists(st.builds(Factor, name=texts, share=numbers), max_size=8)),
        sparkline=draw(st.lists(numbers, max_size=60)),
        links=draw(st.dictionaries(texts, texts.map(lambda t: "https://g.example/" + t) | texts, max_size=6)),
    )
