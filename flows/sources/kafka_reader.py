"""One Kafka consumer that reads several partitions into a queue each."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flows.sources.kafka_log import client_logger, say
from flows.sources.kafka_topics import GROUP

FETCH: dict[str, Any] = {
    "group.id": GROUP,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "fetch.queue.backoff.ms": 5,
    "queued.min.messages": 20_000,
    "fetch.wait.max.ms": 50,
    "reconnect.backoff.max.ms": 2_000,
}
"""Consumer settings; librdkafka's default back-off of 1 s halves the speed of any catch-up (docs/performance.md)."""

POLL_S = 0.02
"""How long a partition without messages rests before it looks again."""

QUEUED_BLOCKS = 4
"""Blocks of messages that may wait in the queues of all partitions: what one partition holds back is read later."""

QUEUED_BYTES = 64 * 1024 * 1024
"""Bytes that may wait there; large messages reach this first."""

ASK_AGAIN_S = 1.0
"""How long a partition whose position is gone waits when the broker does not say where to go on."""

ANSWER_S = 0.5
"""How long a broker may take to say that a silent partition has nothing new."""

Key = tuple[str, int]

OnGone = Callable[[Key, int, int, int], int]
"""Called with a partition, the position that is gone, and the log's beginning and end; says where to go on."""


class PartitionReader:
    """One consumer with a queue of messages per partition. Used by one worker thread only.

    Partitions are assigned one by one, so that one that comes or goes does not disturb the positions of the others.

    Parameters
    ----------
    options
        librdkafka options; they win over `FETCH`.
    on_gone
        Decides where to go on when a position is not in the log any more.
    """

    def __init__(self, options: Mapping[str, Any], on_gone: OnGone) -> None:
        self._unanswered: dict[Key, float] = {}
        """When a partition's broker was last found to be away, on the monotonic clock."""
        self._all_down = float("-inf")
        self.consumer = Consumer({**FETCH, **options, "error_cb": self._trouble}, logger=client_logger())
        self.on_gone = on_gone
        self.queues: dict[Key, deque[Any]] = {}
        self.caught_up: dict[Key, int] = {}
        """Partitions read to their end, and the offset that comes next there."""
        self.heard: set[Key] = set()
        """Partitions that have answered at all."""
        self._gone: dict[Key, int] = {}
        """Partitions whose position is gone, with that position, until it is known where to go on."""
        self._resting: set[Key] = set()
        self._put_back: dict[Key, int] = {}
        """Resting partitions whose messages had to make room, with the offset to fetch them from again."""
        self._ask_at = 0.0
        self._next_poll = 0.0
        self._bytes = 0

    def add(self, topic: str, partition: int, offset: int) -> deque[Any]:
        """Begin to read a partition at an offset; returns its queue."""
        self.consumer.incremental_assign([TopicPartition(topic, partition, offset)])
        queue: deque[Any] = deque()
        self.queues[(topic, partition)] = queue
        return queue

    def remove(self, topic: str, partition: int) -> bool:
        """Stop reading a partition. Returns whether it was the last one; the consumer is then closed."""
        key = (topic, partition)
        if (queue := self.queues.pop(key, None)) is not None:
            self._bytes -= sum(map(len, queue))
            self.caught_up.pop(key, None)
            self._gone.pop(key, None)
            self._unanswered.pop(key, None)
            self._resting.discard(key)
            if self._put_back.pop(key, None) is None:
                self.consumer.incremental_unassign([TopicPartition(topic, partition)])
            if not self.queues:
                self.consumer.close()
        return not self.queues

    def take(self, key: Key, most: int, span_ms: int) -> list[Any]:
        """Up to `most` of a partition's messages that wait in its queue, spanning no more time than `span_ms`.

        Where messages carry no time stamps, or the same, only their number counts.
        """
        queue = self.queues[key]
        messages = [queue.popleft() for _ in range(min(len(queue), most))]
        until_ms = messages[0].timestamp()[1] + span_ms
        if messages[-1].timestamp()[1] > until_ms:
            cut = max(bisect_right(messages, until_ms, key=lambda m: int(m.timestamp()[1])), 1)
            queue.extendleft(reversed(messages[cut:]))
            del messages[cut:]
        self._bytes -= sum(map(len, messages))
        return messages

    def has(self, key: Key) -> bool:
        """Whether a partition has messages that were fetched and not taken."""
        return bool(self.queues[key]) or key in self._put_back

    def rest(self, key: Key) -> None:
        """Note that a partition's messages are not taken for now; they make room if others need it."""
        self._resting.add(key)

    def wake(self, key: Key) -> None:
        """Note that a partition's messages are taken again."""
        self._resting.discard(key)
        offset = self._put_back.pop(key, None)
        if offset is not None:
            self.consumer.incremental_assign([TopicPartition(*key, offset)])

    def _make_room(self) -> bool:
        """Put the longest queue of a resting partition back; returns whether there was one."""
        key = max((k for k in self._resting if self.queues[k]), key=lambda k: len(self.queues[k]), default=None)
        if key is None:
            return False
        queue = self.queues[key]
        self._put_back[key] = queue[0].offset()
        self._bytes -= sum(map(len, queue))
        queue.clear()
        # Otherwise its position would jump over what was put back, and a crash just then would lose it.
        self.caught_up.pop(key, None)
        self.consumer.incremental_unassign([TopicPartition(*key)])
        return True

    def poll(self, count: int) -> None:
        """Fetch up to `count` messages of any partition that are there, without waiting."""
        now = time.monotonic()
        if self._gone and now >= self._ask_at:
            self._find_way()
        if now < self._next_poll:
            return
        while (waiting := sum(map(len, self.queues.values()))) >= QUEUED_BLOCKS * count or self._bytes >= QUEUED_BYTES:
            if not self._make_room():
                return
        # Messages of the average size so far, so that one call does not bring far more bytes than may wait.
        average = self._bytes // waiting if waiting else 0
        fitting = (QUEUED_BYTES - self._bytes) // average + 1 if average else count
        messages = self.consumer.consume(min(count, fitting), timeout=0.0)
        if not messages:
            self._next_poll = now + POLL_S / 2
            return
        for message in messages:
            error = message.error()
            key = (message.topic(), message.partition())
            queue = self.queues.get(key)
            if error is None and queue is not None:
                queue.append(message)
                self._bytes += len(message)
                self.caught_up.pop(key, None)
                self.heard.add(key)
            elif error is not None:
                self._on_error(error, key, message.offset())

    def answered_for_s(self, key: Key) -> tuple[float, int]:
        """For how long a partition's broker has been there, as far as we know, and the end of the log as it says now.

        The first number is 0 if it does not answer; it is then not asked again for a while.
        """
        now = time.monotonic()
        away = max(self._unanswered.get(key, float("-inf")), self._all_down)
        if now < away + ASK_AGAIN_S:
            return 0.0, 0
        found = self.bounds(*key, timeout_s=ANSWER_S)
        if found is None:
            self._unanswered[key] = time.monotonic()
            return 0.0, 0
        return now - away, found[1]

    def _trouble(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._all_down = time.monotonic()
        say(error.str())

    def _on_error(self, error: KafkaError, key: Key, offset: int | None) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if key in self.queues:
                self.caught_up[key] = offset if offset is not None else 0
                self.heard.add(key)
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION):
            if key in self.queues and offset is not None:
                self._gone[key] = offset
        elif error.fatal():
            raise KafkaException(error)
        else:
            where = {"partition": f"{key[0]}/{key[1]}"} if key[0] else {}
            say(error.str(), **where)

    def _find_way(self) -> None:
        for key, position in list(self._gone.items()):
            found = self.bounds(*key, timeout_s=1.0)
            if found is None:
                self._ask_at = time.monotonic() + ASK_AGAIN_S
                return
            if not self.queues[key]:  # what was read before is handed on first
                go_on = self.on_gone(key, position, *found)
                del self._gone[key]
                self.consumer.incremental_unassign([TopicPartition(*key)])
                self.consumer.incremental_assign([TopicPartition(*key, go_on)])

    def bounds(self, topic: str, partition: int, *, timeout_s: float = 10.0) -> tuple[int, int] | None:
        """Oldest offset and end of a partition as the broker says; None if it does not answer."""
        try:
            low, high = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s)
        except KafkaException as problem:
            say(problem.args[0].str(), partition=f"{topic}/{partition}")
            return None
        return low, high

    def lag(self, topic: str, partition: int, position: int) -> int | None:
        """Messages behind the partition's end, as of the last fetch."""
        _, high = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        return max(high - position, 0) if high is not None and high >= 0 else None
