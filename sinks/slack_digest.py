"""Many incidents in one Slack message: for a storm, and for what waited while Slack was away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from schemas.incident import SEVERITIES, Incident
from sinks import wording
from sinks.slack_message import MAX_HEADER_CHARS, SEVERITY_SIGNS, Block, escape, escape_mrkdwn, heading

MAX_NAMED = 12
"""Incidents with a line of their own."""
MAX_LINE_CHARS = 220
MAX_KINDS = 8
MAX_TEXT_CHARS = 600


def digest(incidents: Sequence[Incident]) -> dict[str, Any]:
    """Build one message about all of them: how many, how bad, the worst by name, the rest by kind.

    Below 10,000 characters, whatever the events hold.
    """
    ranked = sorted(incidents, key=_rank)
    named, rest = ranked[:MAX_NAMED], ranked[MAX_NAMED:]
    title = _title(incidents)
    lines = "\n".join("• " + escape(_line(i), MAX_LINE_CHARS) for i in named)
    blocks: list[Block] = [
        {"type": "header", "text": _plain(escape(title, MAX_HEADER_CHARS))},
        {"type": "section", "text": _plain(_counts(incidents))},
        {"type": "section", "text": _plain(lines)},
    ]
    if rest:
        blocks.append({"type": "section", "text": _plain(f"And {len(rest):,} more: {_kinds(rest)}.")})
    why = "One message, because so many came at once · each one is in the incidents table and on the dashboards"
    blocks.append({"type": "context", "elements": [_plain(f"{why} · Tidegauge")]})
    return {"text": escape_mrkdwn(f"{title} – {_counts(incidents)}", MAX_TEXT_CHARS), "blocks": blocks}


def digest_text(incidents: Sequence[Incident]) -> str:
    """The same as plain text, for when Slack refuses the blocks."""
    worst = "; ".join(heading(i) for i in sorted(incidents, key=_rank)[:3])
    return escape_mrkdwn(f"{_title(incidents)} – {_counts(incidents)}. {worst}", MAX_TEXT_CHARS)


def _rank(incident: Incident) -> tuple[bool, int, float]:
    """Open before resolved, then the most severe, then the most expensive."""
    impact = incident.impact_usd_per_hour
    # A comparison with NaN is always false: an unknown impact counts as none.
    known = impact if impact is not None and impact > 0 else 0.0
    return incident.state == "resolved", -SEVERITIES.index(incident.severity), -known


def _title(incidents: Sequence[Incident]) -> str:
    still_open = [i for i in incidents if i.state != "resolved"]
    if not still_open:
        return f"✅ {len(incidents):,} incidents resolved"
    worst = max(still_open, key=lambda i: SEVERITIES.index(i.severity)).severity
    return f"{SEVERITY_SIGNS[worst]} {len(incidents):,} incidents at once, {len(still_open):,} open, worst {worst}"


def _counts(incidents: Sequence[Incident]) -> str:
    severities = Counter[str](i.severity for i in incidents if i.state != "resolved")
    words = [f"{severities[s]:,} {s}" for s in reversed(SEVERITIES) if severities[s]]
    if resolved := sum(i.state == "resolved" for i in incidents):
        words.append(f"{resolved:,} resolved")
    return ", ".join(words)


def _kinds(incidents: Sequence[Incident]) -> str:
    counted = Counter(wording.kind_words(i.kind) for i in incidents).most_common()
    words = [f"{n:,} × {escape(kind, 60)}" for kind, n in counted[:MAX_KINDS]]
    if others := sum(n for _, n in counted[MAX_KINDS:]):
        words.append(f"{others:,} × other kinds")
    return ", ".join(words)


def _line(incident: Incident) -> str:
    impact = incident.impact_usd_per_hour
    return heading(incident) + (f" ({wording.usd_per_hour(impact)})" if impact is not None else "")


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": False}
