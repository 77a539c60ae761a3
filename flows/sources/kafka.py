"""Kafka as a source: one consumer per worker reads all of the worker's partitions.

Positions are ours: they travel in the flow's saved state together with each partition's decoder, never in a consumer
group, so that state and position cannot disagree.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from flows.sources.files import MakePartition
from flows.sources.item import Item
from schemas.block import NO_TIMESTAMP, Block
from schemas.errors import BadSettings
from schemas.formats.base import Format

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

_POLL_S = 0.02
_HEARTBEAT_S = 1.0


def list_partitions(options: Mapping[str, Any], topic: str, *, timeout_s: float = 15.0) -> list[int]:
    """Numbers of a topic's partitions.

    Raises
    ------
    BadSettings
        The broker cannot be reached, or has no such topic.
    """
    consumer = Consumer({**options, "group.id": "tidegauge-metadata"})
    try:
        found = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
        if found.error is not None and found.error.code() != KafkaError.LEADER_NOT_AVAILABLE:
            raise BadSettings(
                f"kafka: topic {topic} cannot be read ({found.error.str()}). Create it, or change the topic's setting."
            )
        return sorted(found.partitions) or [0]
    except KafkaException as problem:
        raise BadSettings(
            f"kafka: no broker answers at {options.get('bootstrap.servers')} ({problem.args[0].str()}). "
            "Check kafka.bootstrap_servers."
        ) from problem
    finally:
        consumer.close()


class _Reader:
    """One consumer with a queue of messages per partition. Used by one worker thread only."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.consumer = Consumer({**FETCH, **options})
        self.start: dict[tuple[str, int], int] = {}
        self.queues: dict[tuple[str, int], deque[Any]] = {}
        self.caught_up: set[tuple[str, int]] = set()
        self._assigned = 0
        self._next_poll = 0.0

    def register(self, topic: str, partition: int, offset: int) -> None:
        self.start[(topic, partition)] = offset
        self.queues[(topic, partition)] = deque()

    def poll(self, count: int) -> None:
        """Fetch what is there, without waiting."""
        if self._assigned != len(self.start):
            self.consumer.assign([TopicPartition(t, p, o) for (t, p), o in self.start.items()])
            self._assigned = len(self.start)
        if time.monotonic() < self._next_poll:
            return
        messages = self.consumer.consume(count, timeout=0.0)
        if not messages:
            self._next_poll = time.monotonic() + _POLL_S / 2
            return
        for message in messages:
            error = message.error()
            key = (message.topic(), message.partition())
            if error is None:
                self.queues[key].append(message)
                self.caught_up.discard(key)
            elif error.code() == KafkaError._PARTITION_EOF:
                self.caught_up.add(key)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._out_of_range(key)
            elif error.fatal():
                raise KafkaException(error)
            else:
                structlog.get_logger().warning("kafka", problem=error.str())

    def _out_of_range(self, key: tuple[str, int]) -> None:
        low, high = self.consumer.get_watermark_offsets(TopicPartition(*key), timeout=10.0)
        structlog.get_logger().error(
            "kafka position out of range: continuing at the oldest message that is left",
            partition=f"{key[0]}/{key[1]}",
            oldest=low,
            newest=high,
        )
        self.consumer.seek(TopicPartition(*key, low))

    def lag(self, topic: str, partition: int, position: int) -> int | None:
        """Messages behind the partition's end, as of the last fetch."""
        _, high = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        return max(high - position, 0) if high is not None and high >= 0 else None


class KafkaSource(FixedPartitionedSource[Item[Any], Any]):
    """Reads a topic.

    Parameters
    ----------
    topic
        Name of the topic.
    partitions
        Its partition numbers.
    format
        How messages are read.
    options
        librdkafka options, `bootstrap.servers` among them.
    make
        Builds each partition's decoder.
    start
        `earliest` or `latest`: where a partition without a saved position begins.
    block_messages
        Messages per block at most.
    disorder_ns, idle_timeout_s
        A partition that is silent for so long, and caught up, is idle; its watermark then follows the clock.
    stop_at_end
        End a partition once it is caught up (the demo and tests); None runs for ever, otherwise a function that says
        whether producers have finished.
    monotonic, wall_ns
        Clocks; a `wall_ns` that returns None switches off the watch over Tidegauge itself.
    """

    def __init__(
        self,
        topic: str,
        partitions: list[int],
        *,
        format: Format,
        options: Mapping[str, Any],
        make: MakePartition,
        start: str,
        block_messages: int,
        idle_timeout_s: float,
        stop_at_end: Callable[[], bool] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int | None] = time.time_ns,
    ) -> None:
        self.topic = topic
        self.partitions = {f"{topic}/{p}": p for p in partitions}
        self.format = format
        self.options = options
        self.make = make
        self.start = OFFSET_BEGINNING if start == "earliest" else OFFSET_END
        self.block_messages = block_messages
        self.idle_timeout_s = idle_timeout_s
        self.stop_at_end = stop_at_end
        self.monotonic = monotonic
        self.wall_ns = wall_ns
        self._readers: dict[int, _Reader] = {}
        self._lock = threading.Lock()

    def list_parts(self) -> list[str]:
        """Names of the partitions."""
        return list(self.partitions)

    def build_part(self, step_id: str, for_part: str, resume_state: Any | None) -> _KafkaPart:
        """Read one partition, from the saved position if there is one."""
        with self._lock:
            thread = threading.get_ident()
            if thread not in self._readers:
                self._readers[thread] = _Reader({"group.id": "tidegauge", **self.options})
            return _KafkaPart(self, self._readers[thread], for_part, resume_state)


class _KafkaPart(StatefulSourcePartition[Item[Any], Any]):
    def __init__(self, source: KafkaSource, reader: _Reader, name: str, resume: Any | None) -> None:
        self.source, self.reader, self.name = source, reader, name
        self.number = source.partitions[name]
        self.offset, state = resume if resume is not None else (source.start, None)
        self.decoder = source.make(source.topic, self.number, source.format, state)
        reader.register(source.topic, self.number, self.offset)
        self.queue = reader.queues[(source.topic, self.number)]
        self.last_message = source.monotonic()
        self.last_beat = 0.0
        self.watermark_ns = -(2**62)
        self.awake: datetime | None = None
        self.ended = False

    def next_batch(self) -> list[Item[Any]]:
        if self.ended:
            raise StopIteration
        source = self.source
        if not self.queue:
            self.reader.poll(source.block_messages)
        if not self.queue:
            self.awake = datetime.now(UTC) + timedelta(seconds=_POLL_S)
            return self._quiet()
        self.awake = None
        messages = [self.queue.popleft() for _ in range(min(len(self.queue), source.block_messages))]
        self.last_message = source.monotonic()
        block = Block(
            source.topic,
            self.number,
            [m.offset() for m in messages],
            [m.value() for m in messages],
            [_timestamp_ms(m) for m in messages],
        )
        batch = self.decoder.feed(block)
        self.offset = messages[-1].offset() + 1
        self.watermark_ns = batch.watermark_ns
        lag = self.reader.lag(source.topic, self.number, self.offset)
        return [Item(self.name, batch, batch.watermark_ns, lag=lag, read_at_ns=source.wall_ns())]

    def _quiet(self) -> list[Item[Any]]:
        """Nothing to read: tell the flow when the partition is idle, so that it does not hold windows open."""
        source = self.source
        if (source.topic, self.number) not in self.reader.caught_up:
            return []
        if source.stop_at_end is not None and source.stop_at_end():
            self.ended = True
            return [Item(self.name, None, 2**62)]
        now = source.monotonic()
        silent_s = now - self.last_message
        if silent_s < source.idle_timeout_s or now - self.last_beat < _HEARTBEAT_S:
            return []
        self.last_beat = now
        watermark_ns = self.watermark_ns
        if watermark_ns > -(2**62):  # event time goes on at the clock's pace since the last message
            watermark_ns += int(silent_s * 1e9)
        return [Item(self.name, None, watermark_ns, idle=True, lag=0, read_at_ns=source.wall_ns())]

    def next_awake(self) -> datetime | None:
        return self.awake

    def snapshot(self) -> Any:
        return self.offset, self.decoder.snapshot()

    def close(self) -> None:
        self.reader.start.pop((self.source.topic, self.number), None)
        if not self.reader.start:
            self.reader.consumer.close()


def _timestamp_ms(message: Any) -> int:
    kind, at_ms = message.timestamp()
    return NO_TIMESTAMP if kind == TIMESTAMP_NOT_AVAILABLE else int(at_ms)
