"""Dead letters as a Kafka topic, so that producers can see what was refused and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaError, Message, Producer

from schemas.dead_letter import DeadLetter

CHECKPOINT_S = 2.0


class DeadLetterTopic:
    """Produces dead letters: each at least once, under its source position as key.

    They are also kept in ClickHouse, so a broker that refuses them is only reported.

    Parameters
    ----------
    topic
        Name of the topic.
    options
        librdkafka options.
    """

    def __init__(self, topic: str, options: Mapping[str, Any]) -> None:
        self.topic = topic
        self.failed = 0
        self._producer = Producer({"linger.ms": 50, "compression.type": "lz4", **options})

    def put(self, letters: Sequence[DeadLetter]) -> None:
        """Send letters, keyed by their source position."""
        for letter in letters:
            key = f"{letter.topic}/{letter.partition}/{letter.offset}/{letter.position}".encode()
            body = msgspec.json.encode(letter)
            try:
                self._produce(body, key)
            except BufferError:
                self._producer.poll(1.0)
                try:
                    self._produce(body, key)
                except BufferError:
                    self.failed += 1
        self._producer.poll(0)

    def checkpoint(self) -> None:
        """Wait, for a moment only, until the broker has what was sent: a crash afterwards would lose it."""
        if len(self._producer) and self._producer.flush(CHECKPOINT_S):
            structlog.get_logger().warning("dead letters wait for the broker", topic=self.topic, n=len(self._producer))

    def close(self) -> None:
        """Send what waits."""
        self._producer.flush(CHECKPOINT_S)

    def _produce(self, body: bytes, key: bytes) -> None:
        self._producer.produce(self.topic, body, key, on_delivery=self._delivered)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed += 1
            structlog.get_logger().warning("dead letter not sent", topic=self.topic, problem=error.str())
