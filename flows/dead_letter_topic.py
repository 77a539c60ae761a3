"""Dead letters as a Kafka topic, so that producers can see what was refused and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaError, Message, Producer

from schemas.dead_letter import DeadLetter


class DeadLetterTopic:
    """Produces dead letters. They are also kept in ClickHouse, so a broker that refuses them is only reported.

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
            try:
                self._producer.produce(
                    self.topic,
                    msgspec.json.encode(letter),
                    f"{letter.topic}/{letter.partition}/{letter.offset}/{letter.position}".encode(),
                    on_delivery=self._delivered,
                )
            except BufferError:
                self.failed += 1
        self._producer.poll(0)

    def close(self) -> None:
        """Send what waits."""
        self._producer.flush(10)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed += 1
            structlog.get_logger().warning("dead letter not sent", topic=self.topic, problem=error.str())
