"""What Kafka still holds: letters on the dead-letter topic, marks of what was replayed, and the original messages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flows.dead_letters.kept import Id, Kept, Wanted, rfc3339, rfc3339_ns
from schemas.dead_letter import DeadLetter
from schemas.errors import TidegaugeError

REPLAYED = "tidegauge-replayed"
"""Header of a mark on the dead-letter topic: the message named by its key was sent once more."""

TIMEOUT_S = 15.0
METADATA_TRIES = 5
METADATA_PAUSE_S = 0.2
FAR = 1_000
"""Messages that are read over on the way to the next one; further ahead the position is set."""


class Topics:
    """Reads topics by position, outside any consumer group.

    Parameters
    ----------
    options
        librdkafka options of every client.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._consumer = Consumer(
            {
                **options,
                "group.id": "tidegauge-dead-letters",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def letters(self, topic: str, wanted: Wanted) -> list[Kept]:
        """Letters on the dead-letter topic, newest first, each place once."""
        found: dict[Id, Kept] = {}
        for message in self._all(topic):
            if _header(message, REPLAYED) is not None:
                continue
            try:
                letter = msgspec.json.decode(message.value() or b"", type=DeadLetter)
            except msgspec.MsgspecError:
                continue  # not ours
            refused_at = datetime.fromtimestamp(message.timestamp()[1] / 1_000, UTC)
            kept = Kept(
                topic=letter.topic, partition=letter.partition, offset=letter.offset, position=letter.position,
                reason=letter.reason.value, detail=letter.detail, at=rfc3339_ns(letter.at_ns),
                refused_at=rfc3339(refused_at), payload=letter.payload,
            )  # fmt: skip
            if wanted.takes(kept, refused_at):
                found[kept.id] = kept
        return sorted(found.values(), key=lambda k: (k.refused_at, k.id), reverse=True)[: wanted.limit]

    def replayed(self, topic: str) -> dict[str, str]:
        """By message (`topic/partition/offset`): when it was replayed."""
        return {
            (message.key() or b"").decode("utf-8", "replace"): rfc3339(
                datetime.fromtimestamp(message.timestamp()[1] / 1_000, UTC)
            )
            for message in self._all(topic)
            if _header(message, REPLAYED) is not None
        }

    def originals(self, ids: Sequence[Id]) -> Iterator[tuple[Id, Message | None]]:
        """The messages at these places, in order of place; None where it is no longer, or not, there."""
        at: tuple[str, int, int] | None = None
        bounds: dict[tuple[str, int], tuple[int, int]] = {}
        for wanted in sorted(set(ids)):
            place = (wanted.topic, wanted.partition)
            if place not in bounds:
                bounds[place] = self._bounds(*place)
            low, high = bounds[place]
            if not low <= wanted.offset < high:
                yield wanted, None
                continue
            if at is None or at[:2] != place or not 0 <= wanted.offset - at[2] <= FAR:
                self._consumer.assign([TopicPartition(*place, wanted.offset)])
            message = self._at(wanted)
            at = (*place, wanted.offset + 1) if message is not None else None
            yield wanted, message

    def _at(self, wanted: Id) -> Message | None:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if message.offset() is not None and message.offset() > wanted.offset:
                    return None
                if error.fatal():
                    raise TidegaugeError(f"dead-letters: kafka: {error.str()}")
                continue
            if message.offset() == wanted.offset:
                return message
            if message.offset() > wanted.offset:  # compacted away, or a mark of a transaction
                return None
        raise TidegaugeError(f"dead-letters: {wanted.message} could not be read within {TIMEOUT_S:g} s; try again")

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        if partition not in self._partitions(topic):
            return 0, 0
        place = TopicPartition(topic, partition)
        low, high = self._of_broker(lambda: self._consumer.get_watermark_offsets(place, TIMEOUT_S))
        return low, high

    def _partitions(self, topic: str) -> list[int]:
        """Numbers of a topic's partitions; none where there is no such topic."""
        for attempt in range(METADATA_TRIES):
            found = self._of_broker(lambda: self._consumer.list_topics(topic, timeout=TIMEOUT_S)).topics[topic]
            if found.error is None and found.partitions:
                return sorted(found.partitions)
            if attempt < METADATA_TRIES - 1:  # the answer of a broker that has only just heard of the topic
                time.sleep(METADATA_PAUSE_S)
        if found.error is not None and found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TidegaugeError(f"dead-letters: topic {topic} cannot be read ({found.error.str()})")
        return []

    def _all(self, topic: str) -> Iterator[Message]:
        """Every message of a topic up to its end as of now."""
        ends = {p: self._bounds(topic, p) for p in self._partitions(topic)}
        open_ends = {p: high for p, (low, high) in ends.items() if high > low}
        if not open_ends:
            return
        self._consumer.assign([TopicPartition(topic, p, ends[p][0]) for p in open_ends])
        heard = time.monotonic()
        while open_ends:
            message = self._consumer.poll(0.5)
            if message is None:
                if time.monotonic() - heard > TIMEOUT_S:
                    raise TidegaugeError(f"dead-letters: {topic} could not be read to its end; try again")
                continue
            heard = time.monotonic()
            error, partition = message.error(), message.partition()
            if error is not None and error.fatal():
                raise TidegaugeError(f"dead-letters: kafka: {error.str()}")
            if error is None and message.offset() < open_ends.get(partition, 0):
                yield message
            # The end of the partition is told as an error; marks of transactions leave gaps before it.
            if (message.offset() or 0) >= open_ends.get(partition, 0) - (error is None):
                open_ends.pop(partition, None)

    def _of_broker(self, ask: Any) -> Any:
        try:
            return ask()
        except KafkaException as problem:
            raise TidegaugeError(
                f"dead-letters: no broker answers ({problem.args[0].str()}). Check kafka.bootstrap_servers."
            ) from None


def _header(message: Message, name: str) -> bytes | None:
    return next((value for key, value in message.headers() or [] if key == name), None)
