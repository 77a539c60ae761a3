"""`tidegauge dead-letters`: look at messages that could not be used, and send them once more."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from flows.assembly import Parts
from flows.dead_letters.kept import Id, Kept, Wanted, check_reason, from_clickhouse, moment, parse_id
from flows.dead_letters.replay import Decoder, Sender, Verdict, judge
from flows.dead_letters.topics import Topics
from flows.pricing import PriceBook
from flows.runtime import kafka_options
from flows.settings import Settings
from flows.settings_file import load, secret
from schemas.errors import BadSettings, TidegaugeError
from schemas.formats import get_format
from schemas.redaction import redact
from sinks.clickhouse.client import connect, describe

QUIET = {"log_level": 2}
ALL_EVENTS = 1_000_000
"""Letters of one message that are looked for."""


def dead_letters(
    action: Literal["list", "show", "replay"],
    *ids: str,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    clickhouse: str | None = None,
    reason: str = "",
    topic: str = "",
    since: str | None = None,
    until: str | None = None,
    limit: int = 100,
    format: Annotated[str | None, Parameter(name=["--format", "-f"])] = None,
    yes: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """List or show messages that could not be used, or send the originals once more.

    Letters come from ClickHouse, or from the dead-letter topic where the settings switch ClickHouse off. `replay` says
    what it would do; with --yes it does it. Secrets and prompt text are never shown.

    Example: tidegauge dead-letters replay --reason missing_field --since 2h --yes

    Parameters
    ----------
    action
        `list`, `show` or `replay`.
    ids
        topic/partition/offset/position, as `list` shows them.
    config
        Settings file.
    clickhouse
        Database instead of the settings' one.
    reason
        Only letters of this reason.
    topic
        Only letters of this source topic.
    since
        Only letters refused since then: RFC 3339, or how long ago (`30m`, `2h`, `7d`).
    until
        Only letters refused before then.
    limit
        Letters at most, the newest ones.
    format
        Format to try the originals with; it must become the topic's format before --yes.
    yes
        Do it.
    json
        JSON lines, also on a terminal.
    """
    settings = load(config)
    now = datetime.now(UTC)
    if limit < 1:
        raise BadSettings("dead-letters: --limit must be at least 1")
    wanted = Wanted(
        ids=[parse_id(text) for text in ids],
        reason=check_reason(reason),
        topic=topic,
        since=moment(since, "--since", now),
        until=moment(until, "--until", now),
        limit=max(limit, len(ids)),
    )
    if action == "show" and not ids:
        raise BadSettings("dead-letters show: name at least one ID, as `dead-letters list` shows it.")
    topics = Topics({**kafka_options(settings), **QUIET})
    try:
        letters = _letters(settings, clickhouse, topics, wanted)
        if action == "list":
            _print([msgspec.to_builtins(letter) | {"id": str(letter.id)} for letter in letters], json, _LIST)
            return 0
        missing = [str(i) for i in wanted.ids if i not in {letter.id for letter in letters}]
        if missing:
            raise TidegaugeError(f"dead-letters: there is no dead letter {', '.join(missing)}. See dead-letters list.")
        if action == "show":
            _show(settings, topics, letters)
            return 0
        verdicts = _replay(settings, clickhouse, topics, letters, format, yes)
    finally:
        topics.close()
    _print([msgspec.to_builtins(verdict) for verdict in verdicts], json, _VERDICTS)
    ready = sum(verdict.outcome == "usable" for verdict in verdicts)
    if ready:
        print(f"{ready} of {len(verdicts)} would be sent once more; add --yes to do it.", file=sys.stderr)
    return 0


_LIST = ("id", "refused_at", "reason", "detail")
_VERDICTS = ("id", "reason", "outcome", "detail")


def _letters(settings: Settings, url: str | None, topics: Topics, wanted: Wanted) -> list[Kept]:
    c = settings.clickhouse
    if c is None and url is None:
        return topics.letters(settings.kafka.dead_letters_topic, wanted)
    password = secret(c.password, c.password_file, "clickhouse.password") if c is not None else None
    client = connect(
        url or (c.url if c is not None else ""), password=password, verify_tls=c.verify_tls if c is not None else True
    )
    try:
        return from_clickhouse(client, wanted)
    except TidegaugeError:
        raise
    except Exception as problem:
        raise TidegaugeError(
            f"dead-letters: the database does not tell: {describe(problem, password)}. Is it migrated?"
        ) from None
    finally:
        client.close()


def _show(settings: Settings, topics: Topics, letters: Sequence[Kept]) -> None:
    replayed = topics.replayed(settings.kafka.dead_letters_topic)
    by_message = dict(topics.originals([_message(k) for k in letters]))
    for letter in letters:
        shown = msgspec.to_builtins(letter) | {"id": str(letter.id)}
        message = by_message[_message(letter)]
        shown["replayed_at"] = replayed.get(letter.id.message)
        shown["retained"] = message is not None
        if message is not None:
            shown["original"] = redact(message.value())
            shown["original_bytes"] = len(message.value() or b"")
            shown["key"] = redact(message.key())
        print(msgspec.json.format(msgspec.json.encode(shown), indent=2 if sys.stdout.isatty() else -1).decode())


def _message(letter: Kept) -> Id:
    return letter.id._replace(position=0)


def _replay(
    settings: Settings, url: str | None, topics: Topics, letters: Sequence[Kept], format: str | None, yes: bool
) -> list[Verdict]:
    k = settings.kafka
    formats = {k.requests_topic: k.requests_format, k.gpus_topic: k.gpus_format}
    if format is not None:
        other = sorted({formats.get(letter.topic, "") for letter in letters} - {format})
        if yes and other:
            raise BadSettings(
                f"dead-letters replay: the flow reads them as {', '.join(other)} and would refuse them again. "
                f"Change kafka.requests_format or kafka.gpus_format to {format} and restart it first."
            )
        get_format(format)
    parts = Parts(settings, PriceBook.load(settings.pricing.overlay))
    decoders = {name: _decoder(parts, name, format or current) for name, current in formats.items()}
    messages = sorted({_message(letter) for letter in letters})
    everything = list(letters)
    if any(letter.position for letter in letters):  # the other events of the same messages count, too
        wanted = Wanted(topic="", limit=ALL_EVENTS)
        names = {m.message for m in messages}
        everything = [k for k in _letters(settings, url, topics, wanted) if k.id.message in names]
    sender = Sender({**kafka_options(settings), **QUIET}, k.dead_letters_topic) if yes else None
    replayed = topics.replayed(k.dead_letters_topic)  # after the sender, which shuts out every other replay
    plan = judge(everything, topics.originals(messages), decoders, replayed, time.time_ns() // 1_000_000)
    return sender.send(plan) if sender is not None else plan.verdicts


def _decoder(parts: Parts, topic: str, format: str) -> Decoder:
    make: Callable[[], Any] = lambda: parts.partition(topic, 0, get_format(format), None)  # noqa: E731
    return make


def _print(rows: Sequence[dict[str, Any]], json: bool, columns: Sequence[str]) -> None:
    if json or not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
        return
    table = Table(box=None)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns))
    Console().print(table, markup=False)
