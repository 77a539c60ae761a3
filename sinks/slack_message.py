"""How an incident looks in Slack: Block Kit within Slack's limits, and nothing in it that an event injected."""

from __future__ import annotations

import re
from typing import Any

import orjson

from schemas.incident import Incident
from sinks import wording

MAX_HEADER_CHARS = 150
MAX_BLOCKS = 50
"""Limits of blocks: https://docs.slack.dev/reference/block-kit/blocks"""
MAX_MESSAGE_CHARS = 10_000
"""Not documented: webhooks refuse messages of about 13,200 characters of blocks with `msg_blocks_too_long`
(https://github.com/slackapi/bolt-js/issues/2509)."""
MAX_SUMMARY_CHARS = 1_500
MAX_FIELD_CHARS = 400
MAX_LINE_CHARS = 200
MAX_CONTRIBUTORS = 5
MAX_FACTORS = 6
MAX_LINKS = 5
MAX_FALLBACK_CHARS = 600
JOINER = "\u2060"
"""Word joiner: invisible, and keeps `@here` from being read as a mention by clients that look for the bare word."""

SEVERITY_SIGNS = {"critical": "🔴", "error": "🟠", "warning": "🟡", "info": "🔵"}
_LOOKALIKES = str.maketrans({"*": "∗", "~": "∼", "`": "ˋ", "|": "¦"})

Block = dict[str, Any]


def escape(text: str, limit: int) -> str:
    """Event-supplied text for any Slack text object: one clean line, escaped, no mention, at most `limit` characters.

    Slack asks to escape `& < >` and nothing else (https://docs.slack.dev/messaging/formatting-message-text#escaping);
    without a raw `<` there is no `<!channel>`, `<@U…>` or hidden link.
    """
    text = re.sub(r"@(?=channel|here|everyone)", "@" + JOINER, wording.clean(text), flags=re.IGNORECASE)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shorter = wording.cut(escaped, limit)
    # The cut may have gone through the middle of an entity.
    return shorter if shorter == escaped else re.sub(r"&[a-z]{0,3}…$", "…", shorter)


def escape_mrkdwn(text: str, limit: int) -> str:
    """Like `escape`, where markup is read: formatting characters become look-alikes, addresses are no links."""
    plain = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", "\uff3f", text.translate(_LOOKALIKES))
    return escape(plain.replace("://", f":{JOINER}//"), limit)


def fallback_text(incident: Incident) -> str:
    """The plain text for notifications and screen readers, and for when Slack refuses the blocks."""
    words = [heading(incident), incident.summary]
    if incident.impact_usd_per_hour is not None:
        words.append(wording.usd_per_hour(incident.impact_usd_per_hour))
    return escape_mrkdwn(" – ".join(words), MAX_FALLBACK_CHARS)


def heading(incident: Incident) -> str:
    """One line: what state, how severe, which kind, where. Open, updated and resolved differ at first sight."""
    sign = SEVERITY_SIGNS.get(incident.severity, "")
    what = wording.title(incident)
    if incident.state == "resolved":
        return f"✅ Resolved: {what}"
    if incident.state == "updated":
        return f"{sign} 🔁 Update, {incident.severity}: {what}"
    return f"{sign} New, {incident.severity}: {what}"


def message(incident: Incident) -> dict[str, Any]:
    """Build the whole message, ready to be encoded as JSON: fewer than 10,000 characters, at most 50 blocks.

    A hostile incident loses its least important blocks first: links, factors, sparkline, contributors.
    """
    resolved = incident.state == "resolved"
    blocks: list[tuple[int, Block]] = [
        (0, {"type": "header", "text": _plain(heading(incident), MAX_HEADER_CHARS)}),
        (0, {"type": "section", "text": _plain(wording.clean(incident.summary) or "(no summary)", MAX_SUMMARY_CHARS)}),
        (0, {"type": "section", "fields": _fields(incident)}),
    ]
    if not resolved:
        blocks += [(2, b) for b in _lines("Who carries the change", _contributors(incident))]
        blocks += [(4, b) for b in _lines("What moved", _factors(incident))]
        if bars := wording.sparkline(incident.sparkline):
            # A no-break space keeps gaps at the ends; the text object is ours alone, so the code marks are meant.
            drawn = bars.replace(" ", "\u00a0")
            blocks.append((3, {"type": "section", "text": _mrkdwn(f"`{drawn}` latest windows, newest right")}))
    if links := wording.web_links(incident.links)[:MAX_LINKS]:
        marked = " · ".join(f"<{url.replace('&', '&amp;')}|{escape_mrkdwn(name, 60)}>" for name, url in links)
        blocks.append((5, {"type": "section", "text": _mrkdwn(marked)}))
    identity = f"incident {incident.incident_id} · revision {incident.revision} · Tidegauge"
    blocks.append((0, {"type": "context", "elements": [_plain(identity, 300)]}))

    text = fallback_text(incident)
    for least in (6, 5, 4, 3, 2, 1):
        built = {"text": text, "blocks": [block for rank, block in blocks if rank < least][:MAX_BLOCKS]}
        if len(orjson.dumps(built).decode()) < MAX_MESSAGE_CHARS:
            return built
    return {"text": text}


def _fields(incident: Incident) -> list[Block]:
    fields = [("Observed", wording.observed_words(incident))]
    if incident.impact_usd_per_hour is not None:
        fields.append(("Impact", wording.usd_per_hour(incident.impact_usd_per_hour)))
    if cause := wording.cause_words(incident):
        fields.append(("Cause", cause))
    if incident.state == "resolved":
        lasted = wording.duration_words(incident.opened_at, incident.resolved_at)
        fields.append(("Opened", wording.since_words(incident.opened_at)))
        fields.append(
            ("Resolved", wording.since_words(incident.resolved_at or "") + (f" ({lasted})" if lasted else ""))
        )
    else:
        fields.append(("Since", wording.since_words(incident.opened_at)))
        fields.append(("Score", wording.number(incident.score)))
        fields.append(("Severity", incident.severity))
    return [_mrkdwn(f"*{label}*\n{escape_mrkdwn(value, MAX_FIELD_CHARS)}") for label, value in fields]


def _contributors(incident: Incident) -> list[str]:
    top = sorted(incident.contributors, key=lambda c: -abs(c.share))[:MAX_CONTRIBUTORS]
    return [wording.contributor_words(c, incident.unit) for c in top]


def _factors(incident: Incident) -> list[str]:
    top = incident.factors[:MAX_FACTORS]
    return [f"{wording.percent(factor.share)} {factor.name.replace('_', ' ')}" for factor in top]


def _lines(label: str, lines: list[str]) -> list[Block]:
    """A titled list as plain text: names of teams and models are shown as they are, whatever characters they hold."""
    if not lines:
        return []
    listed = "\n".join("• " + escape(line, MAX_LINE_CHARS) for line in lines)
    return [{"type": "section", "text": {"type": "plain_text", "text": f"{label}:\n{listed}", "emoji": False}}]


def _plain(text: str, limit: int) -> Block:
    return {"type": "plain_text", "text": escape(text, limit), "emoji": False}


def _mrkdwn(text: str) -> Block:
    # `verbatim`: Slack must not turn what looks like an address or a channel into a link of its own.
    return {"type": "mrkdwn", "text": text, "verbatim": True}
