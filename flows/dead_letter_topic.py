"""Dead letters as a Kafka topic, so that producers can see what was refused and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from flows.sources.kafka_log import client_logger, say
from schemas.dead_letter import DeadLetter

CHECKPOINT_S = 2.0
"""How long the flow waits for the broker: once, and not again before the broker has taken everything."""

WAITING_KB = 32 * 1024
"""KiB of letters that may wait for the broker."""


class DeadLetterTopic:
    """Produces dead letters: each at least once, under its source position as key.

    They are also kept in ClickHouse, so a broker that refuses them is only reported and counted, and does not hold up
    the flow.

    Parameters
    ----------
    topic
        Name of the topic.
    options
        librdkafka options.
    """

    def __init__(self, topic: str, options: Mapping[str, Any]) -> None:
        self.topic = topic
        self.sent = 0
        self.failed = 0
        """Letters that the topic does not have: refused, too many waiting, or given up."""
        self._away = False
        ours = {
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.kbytes": WAITING_KB,
            **options,
            "acks": "all",
        }
        self._producer = Producer(ours, logger=client_logger())

    @property
    def waiting(self) -> int:
        """Letters that the broker has not acknowledged yet."""
        return len(self._producer)

    def put(self, letters: Sequence[DeadLetter]) -> None:
        """Send letters, keyed by their source position."""
        for letter in letters:
            key = f"{letter.topic}/{letter.partition}/{letter.offset}/{letter.position}".encode()
            body = msgspec.json.encode(letter)
            try:
                try:
                    self._produce(body, key)
                except BufferError:
                    self.checkpoint()
                    self._produce(body, key)
            except (BufferError, KafkaException) as problem:
                self._fail(str(problem))
        self._producer.poll(0)

    def checkpoint(self) -> None:
        """Wait, for a moment only, until the broker has what was sent: a crash afterwards would lose it."""
        self._producer.poll(0)
        if not self.waiting:
            self._away = False
        elif not self._away and self._producer.flush(CHECKPOINT_S):
            self._away = True
            structlog.get_logger().warning("dead letters wait for the broker", topic=self.topic, n=self.waiting)

    def close(self) -> None:
        """Send what waits; what cannot be sent now is counted as failed."""
        self._away = False
        self.checkpoint()
        if self.waiting:
            structlog.get_logger().warning("dead letters are not in the topic", topic=self.topic, n=self.waiting)
            self._producer.purge()
            self._producer.flush(0.5)

    def _produce(self, body: bytes, key: bytes) -> None:
        self._producer.produce(self.topic, body, key, on_delivery=self._delivered)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.sent += 1
        else:
            self._fail(error.str())

    def _fail(self, why: str) -> None:
        self.failed += 1
        say(f"dead letter not sent: {why}", topic=self.topic)
