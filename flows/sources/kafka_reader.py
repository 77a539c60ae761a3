"""One Kafka consumer that reads several partitions into a queue each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

FETCH: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "fetch.queue.backoff.ms": 5,
    "queued.min.messages": 20_000,
    "fetch.wait.max.ms": 50,
}
"""Consumer settings; librdkafka's default back-off of 1 s halves the speed of any catch-up (docs/performance.md)."""

POLL_S = 0.02
"""How long a partition without messages rests before it looks again."""

QUEUED_BLOCKS = 4
"""Blocks of messages that may wait in the queues of all partitions: what one partition holds back is read later."""

Key = tuple[str, int]


class PartitionReader:
    """One consumer with a queue of messages per partition. Used by one worker thread only.

    Partitions are assigned one by one, so that one that comes or goes does not disturb the positions of the others.

    Parameters
    ----------
    options
        librdkafka options; they win over `FETCH`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.consumer = Consumer({**FETCH, **options})
        self.queues: dict[Key, deque[Any]] = {}
        self.caught_up: set[Key] = set()
        self.heard: set[Key] = set()
        """Partitions that have answered at all."""
        self._next_poll = 0.0

    def add(self, topic: str, partition: int, offset: int) -> deque[Any]:
        """Begin to read a partition at an offset; returns its queue."""
        self.consumer.incremental_assign([TopicPartition(topic, partition, offset)])
        queue: deque[Any] = deque()
        self.queues[(topic, partition)] = queue
        return queue

    def remove(self, topic: str, partition: int) -> bool:
        """Stop reading a partition. Returns whether it was the last one; the consumer is then closed."""
        if self.queues.pop((topic, partition), None) is not None:
            self.caught_up.discard((topic, partition))
            self.consumer.incremental_unassign([TopicPartition(topic, partition)])
            if not self.queues:
                self.consumer.close()
        return not self.queues

    def poll(self, count: int) -> None:
        """Fetch up to `count` messages of any partition that are there, without waiting."""
        if time.monotonic() < self._next_poll or sum(map(len, self.queues.values())) >= QUEUED_BLOCKS * count:
            return
        messages = self.consumer.consume(count, timeout=0.0)
        if not messages:
            self._next_poll = time.monotonic() + POLL_S / 2
            return
        for message in messages:
            error = message.error()
            key = (message.topic(), message.partition())
            queue = self.queues.get(key)
            if error is None and queue is not None:
                queue.append(message)
                self.caught_up.discard(key)
                self.heard.add(key)
            elif error is not None:
                self._on_error(error, key)

    def _on_error(self, error: KafkaError, key: Key) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if key in self.queues:
                self.caught_up.add(key)
                self.heard.add(key)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._out_of_range(key)
        elif error.fatal():
            raise KafkaException(error)
        else:
            structlog.get_logger().warning("kafka", problem=error.str())

    def _out_of_range(self, key: Key) -> None:
        low, high = self.consumer.get_watermark_offsets(TopicPartition(*key), timeout=10.0)
        structlog.get_logger().error(
            "kafka position out of range: continuing at the oldest message that is left",
            partition=f"{key[0]}/{key[1]}",
            oldest=low,
            newest=high,
        )
        self.consumer.seek(TopicPartition(*key, low))

    def bounds(self, topic: str, partition: int, *, timeout_s: float = 10.0) -> tuple[int, int] | None:
        """Oldest offset and end of a partition as the broker says; None if it does not answer."""
        try:
            low, high = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s)
        except KafkaException as problem:
            structlog.get_logger().warning("kafka", problem=problem.args[0].str(), partition=f"{topic}/{partition}")
            return None
        return low, high

    def lag(self, topic: str, partition: int, position: int) -> int | None:
        """Messages behind the partition's end, as of the last fetch."""
        _, high = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        return max(high - position, 0) if high is not None and high >= 0 else None
