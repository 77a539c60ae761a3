"""Dead letters that were kept: which are wanted, and where they are read from (ClickHouse, else the topic)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from msgspec import Struct

from schemas.errors import BadSettings, Reason

_AGO = re.compile(r"(\d+)([smhd])")
_UNIT = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Id(NamedTuple):
    """Where the message stands that a dead letter is of."""

    topic: str
    partition: int
    offset: int
    position: int = 0

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}/{self.position}"

    @property
    def message(self) -> str:
        """Name of the message, which may hold several events."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Kept(Struct, frozen=True, kw_only=True):
    """A dead letter as it was kept."""

    topic: str
    partition: int
    offset: int
    position: int
    reason: str
    detail: str
    at: str
    """Event time, or the partition's highest one then."""
    refused_at: str
    payload: str

    @property
    def id(self) -> Id:
        """Its place."""
        return Id(self.topic, self.partition, self.offset, self.position)


class Wanted(Struct, frozen=True, kw_only=True):
    """Which dead letters a person asked for; what is empty does not matter."""

    ids: Sequence[Id] = ()
    reason: str = ""
    topic: str = ""
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100

    def takes(self, letter: Kept, refused_at: datetime) -> bool:
        """Whether a letter is one of them."""
        return (
            (not self.ids or letter.id in self.ids)
            and self.reason in ("", letter.reason)
            and self.topic in ("", letter.topic)
            and (self.since is None or refused_at >= self.since)
            and (self.until is None or refused_at < self.until)
        )


def parse_id(text: str) -> Id:
    """Read `topic/partition/offset[/position]`.

    Raises
    ------
    BadSettings
        It is none.
    """
    parts = text.split("/")
    numbers = parts[1:]
    if 3 <= len(parts) <= 4 and parts[0] and all(n.isascii() and n.isdigit() and len(n) < 19 for n in numbers):
        return Id(parts[0], *map(int, numbers))
    raise BadSettings(
        f"dead-letters: {text!r} is no ID. Write topic/partition/offset/position, as `dead-letters list` shows it."
    )


def moment(text: str | None, option: str, now: datetime) -> datetime | None:
    """Read `--since` or `--until`: RFC 3339 with a zone, or how long ago (`30m`, `2h`, `7d`).

    Raises
    ------
    BadSettings
        It is neither.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(**{_UNIT[ago[2]]: int(ago[1])})
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadSettings(f"dead-letters: {option} {text!r} is no time. Write 2026-01-31T12:00:00Z, or 30m, 2h, 7d (ago).")


def check_reason(text: str) -> str:
    """A reason of the closed list, or the empty text.

    Raises
    ------
    BadSettings
        There is no such reason.
    """
    if text and text not in [reason.value for reason in Reason]:
        raise BadSettings(f"dead-letters: there is no reason {text!r}; choose from {', '.join(sorted(Reason))}.")
    return text


_LETTERS = """
SELECT topic, `partition`, `offset`, position, reason, detail, toUnixTimestamp64Nano(at), toUnixTimestamp(inserted_at),
    payload
FROM dead_letters FINAL
WHERE ({reason:String} = '' OR reason = {reason:String})
    AND ({topic:String} = '' OR topic = {topic:String})
    AND inserted_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND inserted_at < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
    AND (empty({topics:Array(String)}) OR (topic, `partition`, `offset`, position) IN arrayZip(
        {topics:Array(String)}, {partitions:Array(Int32)}, {offsets:Array(Int64)}, {positions:Array(Int32)}))
ORDER BY inserted_at DESC, topic, `partition`, `offset`, position
LIMIT {limit:UInt64}
"""
_EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def from_clickhouse(client: Any, wanted: Wanted) -> list[Kept]:
    """Newest letters first, from the table `dead_letters`."""
    since, until = wanted.since or _EVER[0], wanted.until or _EVER[1]
    rows = client.query(
        _LETTERS,
        parameters={
            "reason": wanted.reason,
            "topic": wanted.topic,
            "since": int(since.timestamp() * 1_000),
            "until": int(until.timestamp() * 1_000),
            "topics": [i.topic for i in wanted.ids],
            "partitions": [i.partition for i in wanted.ids],
            "offsets": [i.offset for i in wanted.ids],
            "positions": [i.position for i in wanted.ids],
            "limit": wanted.limit,
        },
    ).result_rows
    return [
        Kept(
            topic=row[0], partition=row[1], offset=row[2], position=row[3], reason=row[4], detail=row[5],
            at=rfc3339_ns(row[6]), refused_at=rfc3339(datetime.fromtimestamp(row[7], UTC)), payload=row[8],
        )
        for row in rows
    ]  # fmt: skip


def rfc3339(at: datetime) -> str:
    """As text, to the millisecond."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_ns(ns: int) -> str:
    """Nanoseconds since the epoch as text; empty before any event."""
    return rfc3339(datetime.fromtimestamp(ns // 1_000_000 / 1_000, UTC)) if ns else ""
