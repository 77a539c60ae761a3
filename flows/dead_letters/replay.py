"""Sending original messages once more: which can be used now, and producing those, each once.

A message and the mark that it was replayed are written in one Kafka transaction. A replay that breaks off therefore
leaves both or neither, and a second one, even at the same time, sends nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Message, Producer
from msgspec import Struct

from flows.dead_letters.kept import Id, Kept
from flows.dead_letters.topics import REPLAYED
from flows.partition import GpuPartition, RequestPartition
from schemas.block import NO_TIMESTAMP, Block
from schemas.errors import Reason, TidegaugeError
from schemas.redaction import redact

REPLAY_OF = "tidegauge-replay-of"
"""Header of a message that was sent once more: where the original stands."""

TRANSACTIONAL_ID = "tidegauge-dead-letters"
BATCH = 500
TIMEOUT_S = 30.0

Decoder = Callable[[], RequestPartition | GpuPartition]


class Verdict(Struct, frozen=True, kw_only=True):
    """What happens, or would happen, to one message."""

    id: str
    topic: str
    reason: str
    """Why it was refused."""
    outcome: str
    """`usable`, `replayed`, `already_replayed`, `refused_again`, `gone`, `another_message`, `counted` (its raw row was
    kept) or `partly_used` (other events of the message were)."""
    detail: str = ""


class Plan(Struct, kw_only=True):
    """Verdicts, and what is to be produced: message and timestamp by id."""

    verdicts: list[Verdict] = []
    sends: dict[str, tuple[Id, Message, int]] = {}


def judge(
    letters: Sequence[Kept],
    originals: Iterable[tuple[Id, Message | None]],
    decoders: Mapping[str, Decoder],
    replayed: Mapping[str, str],
    now_ms: int,
) -> Plan:
    """Decide for each message whether it can be used now.

    Parameters
    ----------
    letters
        All letters of the messages in question.
    originals
        The messages; see `Topics.originals`.
    decoders
        By topic: a fresh decoder of the flow's current format.
    replayed
        By message: when it was replayed before.
    now_ms
        The clock, milliseconds since the epoch.
    """
    by_message: dict[str, list[Kept]] = {}
    for letter in letters:
        by_message.setdefault(letter.id.message, []).append(letter)
    plan = Plan()
    for wanted, message in originals:
        mine = by_message[wanted.message]
        first = mine[0]
        outcome, detail, stamp = "", "", NO_TIMESTAMP
        if wanted.message in replayed:
            outcome, detail = "already_replayed", f"at {replayed[wanted.message]}"
        elif message is None:
            outcome, detail = "gone", "the topic no longer holds it (retention, compaction, or made anew)"
        elif redact(message.value()) != first.payload:
            outcome, detail = "another_message", "what stands there now is not what was refused"
        elif any(letter.reason == Reason.TOO_LATE for letter in mine):
            outcome, detail = "counted", "its raw row is kept; only its window had closed"
        elif wanted.topic not in decoders:
            outcome, detail = "refused_again", "the settings name no stream that reads this topic"
        else:
            outcome, detail, stamp = _try(wanted, message, mine, decoders[wanted.topic], now_ms)
        if outcome == "usable":
            assert message is not None
            plan.sends[wanted.message] = (wanted, message, stamp)
        plan.verdicts.append(
            Verdict(id=wanted.message, topic=wanted.topic, reason=first.reason, outcome=outcome, detail=detail)
        )
    return plan


def _try(wanted: Id, message: Message, letters: Sequence[Kept], decoder: Decoder, now_ms: int) -> tuple[str, str, int]:
    """Decode with the original's timestamp, else with that of now (a clock that was ahead has been caught up with)."""
    original_ms = int(message.timestamp()[1])
    why = ""
    for stamp in (original_ms, now_ms):
        block = Block(wanted.topic, wanted.partition, [wanted.offset], [message.value()], [stamp])
        batch = decoder().feed(block)
        refused = [d for d in batch.dead if d.reason is not Reason.TOO_LATE]
        events = len(batch.columns) + len(refused)
        if not refused and events:
            if events > 1 and len({letter.position for letter in letters}) < events:
                return "partly_used", f"other events of its {events} may have been counted", NO_TIMESTAMP
            return "usable", f"{events} event{'s' if events > 1 else ''}", stamp
        why = f"{refused[0].reason.value}: {refused[0].detail}" if refused else "it holds no events"
    return "refused_again", why, NO_TIMESTAMP


class Sender:
    """Produces messages and their marks, transaction by transaction.

    Parameters
    ----------
    options
        librdkafka options.
    marks_topic
        The dead-letter topic, which takes the marks.

    Raises
    ------
    TidegaugeError
        The broker does not answer or allows no transactions.
    """

    def __init__(self, options: Mapping[str, Any], marks_topic: str) -> None:
        self._marks_topic = marks_topic
        # The flow's own options may hold some that only a consumer or a producer without transactions knows.
        self._producer = Producer({**options, "transactional.id": TRANSACTIONAL_ID, "enable.idempotence": True})
        self._do(self._producer.init_transactions)

    def send(self, plan: Plan) -> list[Verdict]:
        """Produce what is usable; returns all verdicts as they are now. Marks must have been read after `__init__`."""
        sends = list(plan.sends.items())
        for start in range(0, len(sends), BATCH):
            self._do(self._producer.begin_transaction)
            try:
                for name, (wanted, message, stamp) in sends[start : start + BATCH]:
                    self._produce(name, wanted, message, stamp)
                self._do(self._producer.commit_transaction)
            except BaseException:
                self._producer.abort_transaction(TIMEOUT_S)
                raise
        return [msgspec.structs.replace(v, outcome="replayed") if v.id in plan.sends else v for v in plan.verdicts]

    def _produce(self, name: str, wanted: Id, message: Message, stamp: int) -> None:
        headers = [(k, v) for k, v in message.headers() or [] if k != REPLAY_OF]
        self._producer.produce(
            wanted.topic,
            value=message.value(),
            key=message.key(),
            partition=wanted.partition,
            timestamp=stamp,
            headers=[*headers, (REPLAY_OF, name.encode())],
        )
        mark = {"replayed": name, "at_ms": time.time_ns() // 1_000_000}
        self._producer.produce(
            self._marks_topic, value=msgspec.json.encode(mark), key=name.encode(), headers=[(REPLAYED, b"1")]
        )

    def _do(self, step: Callable[[float], Any]) -> None:
        try:
            step(TIMEOUT_S) if step != self._producer.begin_transaction else self._producer.begin_transaction()
        except KafkaException as problem:
            raise TidegaugeError(
                f"dead-letters: nothing of this batch was sent: {problem.args[0].str()}. "
                f"The user needs the right to transactions under the id {TRANSACTIONAL_ID}, and to write to "
                f"{self._marks_topic}."
            ) from None
