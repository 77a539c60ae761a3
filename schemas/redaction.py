"""Redaction: what may be shown of a message that we did not accept, or of an error text.

Secrets (keys, tokens, passwords, credentials in addresses) and prompt or completion content are replaced by
`[removed]`. A whole JSON message is walked by field name. In everything else (truncated JSON, plain text, Python
dictionaries in error texts) a field that may hold content or a secret takes the rest with it wherever the end of its
value is not certain: losing context is cheaper than keeping a prompt.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import orjson

from schemas.dead_letter import MAX_PAYLOAD_CHARS
from schemas.field_names import hides_content, is_sensitive

REMOVED = "[removed]"
MAX_WALKED_BYTES = 262_144
"""Larger messages are not parsed; they are treated as text, of which only the beginning is read."""
MAX_READ_CHARS = 8_192
"""Characters of a text that are looked at at all; more never fits into what is kept."""
MAX_DEPTH = 32
"""Deeper JSON is removed unseen."""

SECRET = re.compile(
    r"""
    -----BEGIN[ A-Z0-9]*PRIVATE\ KEY.*?(?:-----END[ A-Z0-9]*PRIVATE\ KEY-----|\Z)
    | \b(?:bearer|basic)[\s:]+[^\s"',;]+
    | eyJ[\w-]{8,}(?:\.[\w-]*){0,4}
    | (?<![A-Za-z0-9])(?:sk|pk|rk)[-_][\w-]{8,}
    | (?:sk|pk|rk)[-_](?=[A-Za-z_-]*\d)[\w-]{16,}
    | (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}
    | AIza[\w-]{20,}
    | (?:gh[pousr]|github_pat)_\w{16,}
    | (?:glpat|xox[a-z]|xapp|xai|gsk|hf|pplx|nvapi|r8|tgp|fw|csk|dop|dapi|shpat|npm|pypi)[-_](?=[\w-]*\d)[\w-]{16,}
    | (?<=://)[^/\s@"']*(?=@)
    """,
    flags=re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""Secrets that are known by their own form (vendors' documented prefixes), wherever they stand."""

FIELD = re.compile(
    r"""
    (?<![\w.$/-])
    (?P<name>(?:[\w.$/-]|\\u[0-9a-fA-F]{4})++)
    (?:\[\d*\])?
    (?:
        (?P<quote>\\*["'`])?+ \s*+ (?: => | [:=] | , \s*+ \\*["'] (?:\w*[vV]alue) \\*["'] \s*+ : ) \s*+
      | \\*["'`]                       # a quoted name without a value that we understand
    )
    """,
    flags=re.VERBOSE,
)
"""Something that may be a field's name, before its value. Atomic throughout: linear time on every text."""

LITERAL = re.compile(r"(?:-?\d[\d.eE+-]{0,30}|true|false|null|True|False|None)(?=\s*(?:[,}\])]|$))")
OPENING = re.compile(r"(\\*)([\"'])")
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def redact(raw: bytes | str | None, limit: int = MAX_PAYLOAD_CHARS) -> str:
    """What may be shown of a message: at most `limit` characters, without secrets and content, never raising.

    Parameters
    ----------
    raw
        The message. Invalid UTF-8 is replaced by U+FFFD.
    limit
        Most characters of the result; an ellipsis as its last character marks a cut.

    Examples
    --------
    >>> redact(b'{"model":"m","prompt":"my diary","api_key":"sk-0123456789abcdef"}')
    '{"model":"m","prompt":"[removed]","api_key":"[removed]"}'
    >>> redact('{"model": "m", "messages": [{"role": "user", "cont')
    '{"model": "m", "messages": [removed]'
    """
    if not raw:
        return ""
    data = raw.encode("utf-8", "replace") if isinstance(raw, str) else raw
    if len(data) <= MAX_WALKED_BYTES and data.lstrip()[:1] in (b"{", b"["):
        try:
            shown = orjson.dumps(_walk(orjson.loads(data), 0)).decode()
        except ValueError:  # not JSON (orjson's errors are ValueErrors)
            pass
        else:
            return _cut(shown, limit)
    return redact_text(data[: 4 * MAX_READ_CHARS].decode("utf-8", "replace"), limit)


def redact_text(text: str, limit: int) -> str:
    """As `redact`, for a text that is known not to be one JSON object (an error message)."""
    clean = text if text.isascii() else text.encode("utf-8", "replace").decode()
    return _cut(_scrub(clean), limit)


def _cut(text: str, limit: int) -> str:
    text = CONTROL.sub("�", text)
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"[:limit]


def _walk(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _scrub(value)
    if isinstance(value, dict):
        if depth >= MAX_DEPTH:
            return REMOVED
        # Attributes of OTLP and others name the field in a value: {"key": "gen_ai.prompt", "value": ...}
        named = value.get("key", value.get("name"))
        if isinstance(named, str) and is_sensitive(named):
            return {
                k: v if k in ("key", "name") and isinstance(v, str) and is_sensitive(v) else REMOVED
                for k, v in value.items()
                if not is_sensitive(k)
            }
        return {_scrub(k): REMOVED if is_sensitive(k) else _walk(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return REMOVED if depth >= MAX_DEPTH else [_walk(v, depth + 1) for v in value]
    return value


def _scrub(text: str) -> str:
    if len(text) <= 64:
        return _scrub_short(text)
    if len(text) <= MAX_READ_CHARS:
        return SECRET.sub(REMOVED, _scrub_fields(text))
    # The cut may halve a secret so that its form no longer shows: drop the last, unfinished word.
    head, space, _ = text[:MAX_READ_CHARS].rpartition(" ")
    return SECRET.sub(REMOVED, _scrub_fields(head if space else "")) + "…"


@lru_cache(maxsize=8_192)
def _scrub_short(text: str) -> str:
    """With a memory: dimension values repeat, and a flood of dead letters must stay cheap."""
    return SECRET.sub(REMOVED, _scrub_fields(text))


def _scrub_fields(text: str) -> str:
    """Remove the values of sensitive fields; everything after one whose value has no certain end."""
    kept: list[str] = []
    done = position = 0
    while match := FIELD.search(text, position):
        position = match.end()
        name = match["name"]
        if "\\u" in name:
            name = ESCAPE.sub(lambda m: chr(int(m[1], 16)), name)
        if not is_sensitive(name):
            # What follows the name may begin with the next one.
            position = match.end("name")
            continue
        understood = text[match.end("name") : match.end()].strip("\\\"'`") != ""
        if not understood and not hides_content(name):
            position = match.end("name")
            continue
        end = _value_end(text, match.end()) if understood else len(text)
        if end == match.end():
            continue  # a number or a constant holds neither content nor a secret
        kept.append(text[done : match.end()] + REMOVED)
        done = position = end
    kept.append(text[done:])
    return "".join(kept)


def _value_end(text: str, start: int) -> int:
    """Where the value that begins at `start` certainly ends; `start` itself for a number, true, false or null."""
    if LITERAL.match(text, start):
        return start
    opening = OPENING.match(text, start)
    if opening is None:
        return len(text)
    escapes, quote = opening.groups()
    position = opening.end()
    while (position := text.find(quote, position)) >= 0:
        before = len(text[start:position]) - len(text[start:position].rstrip("\\"))
        position += 1
        # A quotation mark behind as many backslashes as the opening one ends the text, one behind more is inside.
        if before == len(escapes):
            return position if _plausible_end(text, position) else len(text)
        if before < len(escapes):
            return len(text)
    return len(text)


def _plausible_end(text: str, position: int) -> bool:
    """Whether a closing quotation mark is followed by what follows values: otherwise it may be an apostrophe."""
    return re.match(r"\s*(?:[,}\])]|\\*[\"']\s*$|$)", text[position : position + 64]) is not None
