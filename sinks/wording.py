"""How an incident is put into words: the same numbers and names in every message to people."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from schemas.incident import Contributor, Incident

BARS = "▁▂▃▄▅▆▇█"
MAX_BARS = 40
MAX_URL_CHARS = 1_000

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories of control and formatting characters, among them those that reverse the reading direction."""


def clean(text: str) -> str:
    """One line of visible text: control, direction and other invisible characters become spaces.

    Event fields are written by whoever calls a model; this is what keeps them from rearranging a message.
    """
    visible = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in text)
    return " ".join(visible.split())


def cut(text: str, limit: int) -> str:
    """Shorten to at most `limit` UTF-16 units (the strictest way in which vendors count), with an ellipsis."""
    if _units(text) <= limit:
        return text
    kept: list[str] = []
    left = limit - 1
    for c in text:
        left -= 1 if ord(c) < 0x10000 else 2
        if left < 0:
            break
        kept.append(c)
    return "".join(kept) + "…"


def _units(text: str) -> int:
    return len(text) + sum(ord(c) > 0xFFFF for c in text)


def title(incident: Incident) -> str:
    """Kind and series in one line, such as ``Cost spike: team=search, model=gpt-x``."""
    return f"{kind_words(incident.kind)}: {dims_words(incident.dims)}"


def kind_words(kind: str) -> str:
    """Readable name of a kind: ``GPU idle``, ``Cost spike``."""
    words = clean(kind).replace("_", " ")
    words = re.sub(r"\b(gpu|slo)\b", lambda m: m.group().upper(), words)
    return words[:1].upper() + words[1:]


def dims_words(dims: Mapping[str, str]) -> str:
    """Dimensions with their values; the total has none."""
    return ", ".join(f"{clean(k)}={clean(v) or '(empty)'}" for k, v in dims.items()) or "all traffic"


def number(value: float) -> str:
    """A number for people: four significant digits, thousands separated, `unknown` if it is none."""
    if not math.isfinite(value):
        return "unknown"
    if value == 0 or 1e-4 <= abs(value) < 1e15:
        digits = 0 if abs(value) >= 1_000 else 4
        text = f"{value:,.0f}" if digits == 0 else f"{value:.{digits}g}"
        return f"{float(text):,.0f}" if "e" in text else text
    return f"{value:.3g}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit; ratios as percent."""
    if not math.isfinite(value):
        return "unknown"
    if unit in ("ratio", "share"):
        return f"{number(value * 100)} %"
    return f"{number(value)} {clean(unit)}".rstrip()


def usd_per_hour(value: float) -> str:
    """Money per hour: ``$1,234.50 per hour``."""
    return f"${value:,.2f} per hour" if math.isfinite(value) else "unknown"


def observed_words(incident: Incident) -> str:
    """Observed against expected, with the factor between them."""
    words = quantity(incident.observed, incident.unit)
    if math.isfinite(incident.expected):
        words += f", expected {quantity(incident.expected, incident.unit)}"
        if incident.expected > 0 and incident.observed > 0 and math.isfinite(incident.observed):
            words += f" (×{number(incident.observed / incident.expected)})"
    return words


def cause_words(incident: Incident) -> str:
    """Cause and whether retrying helps; empty if there is no verdict."""
    if incident.cause is None:
        return ""
    retry = {True: "; retrying helps", False: "; retrying does not help", None: ""}[incident.retry_helps]
    return clean(incident.cause) + retry


def percent(share: float) -> str:
    """A share of the change: ``63 %``."""
    return f"{share * 100:.0f} %" if math.isfinite(share) else "unknown"


def contributor_words(contributor: Contributor, unit: str) -> str:
    """One member series with its part of the change."""
    change = f"{quantity(contributor.observed, unit)}, expected {quantity(contributor.expected, unit)}"
    return f"{percent(contributor.share)} {dims_words(contributor.dims)} ({change})"


def sparkline(values: Sequence[float]) -> str:
    """Draw values, oldest first, with block characters, from zero or the least value up; unknown ones are gaps."""
    values = values[-MAX_BARS:]
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return ""
    low, high = min(0.0, *known), max(known)
    # Halved first: the difference of two huge floats would be infinite.
    span = high / 2 - low / 2
    steps = len(BARS) - 1
    return "".join(
        " " if not math.isfinite(v) else BARS[round((v / 2 - low / 2) / span * steps) if span > 0 else 0]
        for v in values
    )


def since_words(time: str) -> str:
    """An RFC 3339 time for people: ``2026-03-01 10:20:00 UTC``; as it came if it cannot be read."""
    at = instant(time)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else clean(time)


def duration_words(start: str, end: str | None) -> str:
    """Time between two instants: ``2 h 05 min``; empty if one is missing."""
    first, last = instant(start), instant(end or "")
    if first is None or last is None or last < first:
        return ""
    minutes, seconds = divmod(int((last - first).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def instant(time: str) -> datetime | None:
    """Read an RFC 3339 time."""
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def web_links(links: Mapping[str, str]) -> list[tuple[str, str]]:
    """Links as (name, address), without those that are no http(s) address or too long to be clicked.

    What could end the address inside a vendor's markup, or read as a mention there, is percent-encoded.
    """
    kept: list[tuple[str, str]] = []
    for name, address in links.items():
        # A dimension inside may hold anything, a lone surrogate too, which `quote` cannot encode.
        readable = address.encode("utf-8", "replace").decode()
        safe = quote(readable, safe="%/:?#[]!$&()*+,;=~-._")
        try:
            parts = urlsplit(safe)
        except ValueError:
            continue
        if (
            parts.scheme in ("http", "https")
            and parts.netloc
            and "%" not in parts.netloc
            and len(safe) <= MAX_URL_CHARS
        ):
            kept.append((kind_words(name), safe))
    return kept
