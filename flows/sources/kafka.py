"""Kafka as a source: one consumer per worker reads all of the worker's partitions.

Positions are ours: they travel in the flow's saved state together with each partition's decoder, never in a consumer
group, so that state and position cannot disagree.
"""

from __future__ import annotations

import threading
import time
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
)

from flows.partition import GpuPartition, RequestPartition
from flows.sources.files import MakePartition
from flows.sources.item import Item
from flows.sources.kafka_reader import POLL_S, PartitionReader
from schemas.block import NO_TIMESTAMP, Block
from schemas.errors import BadSettings, StateUnreadable
from schemas.formats.base import Format

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
        deadline = time.monotonic() + timeout_s
        while True:
            found = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
            if found.partitions and found.error is None:
                return sorted(found.partitions)
            made_just_now = found.error is None or found.error.code() == KafkaError.LEADER_NOT_AVAILABLE
            if not made_just_now or time.monotonic() > deadline:
                why = found.error.str() if found.error is not None else "it has no partitions"
                raise BadSettings(
                    f"kafka: topic {topic} cannot be read ({why}). Create it, or change the topic's setting."
                )
            time.sleep(0.1)
    except KafkaException as problem:
        raise BadSettings(
            f"kafka: no broker answers at {options.get('bootstrap.servers')} ({problem.args[0].str()}). "
            "Check kafka.bootstrap_servers."
        ) from problem
    finally:
        consumer.close()


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
    idle_timeout_s
        A partition that is silent for so long, and caught up, is idle; its watermark then follows the clock.
    stop_at_end
        End a partition once it is caught up (the demo and tests); None runs for ever, otherwise a function that says
        whether producers have finished.
    stopping
        Once it says so, every partition ends where it is: what was read flows to its end and is saved, and a later
        start goes on from there.
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
        stopping: Callable[[], bool] = lambda: False,
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
        self.stopping = stopping
        self.monotonic = monotonic
        self.wall_ns = wall_ns
        self._readers: dict[int, PartitionReader] = {}
        self._lock = threading.Lock()

    def list_parts(self) -> list[str]:
        """Names of the partitions."""
        return list(self.partitions)

    def build_part(self, step_id: str, for_part: str, resume_state: Any | None) -> _KafkaPart:
        """Read one partition, from the saved position if there is one."""
        with self._lock:
            thread = threading.get_ident()
            if thread not in self._readers:
                self._readers[thread] = PartitionReader({"group.id": "tidegauge", **self.options})
            return _KafkaPart(self, self._readers[thread], for_part, resume_state)

    def forget(self, reader: PartitionReader) -> None:
        """Let go of a reader whose last partition was closed."""
        with self._lock:
            self._readers = {thread: r for thread, r in self._readers.items() if r is not reader}

    def missing(self) -> str:
        """Empty when every partition of this process has answered, otherwise which has not."""
        with self._lock:
            readers = list(self._readers.values())
        silent = [f"{t}/{p}" for r in readers for t, p in sorted(r.queues.keys() - r.heard)]
        if silent or not readers:
            return f"{', '.join(silent) or self.topic} has not been read yet"
        return ""


class _KafkaPart(StatefulSourcePartition[Item[Any], Any]):
    def __init__(self, source: KafkaSource, reader: PartitionReader, name: str, resume: Any | None) -> None:
        self.source, self.reader, self.name = source, reader, name
        self.number = source.partitions[name]
        offset, state = resume if resume is not None else (source.start, None)
        self.decoder = self._decoder(state)
        self.offset = offset if offset >= 0 else self._first(offset)
        self.queue = reader.add(source.topic, self.number, self.offset)
        self.last_message = source.monotonic()
        self.last_beat = -_HEARTBEAT_S
        self.watermark_ns = self.decoder.watermark_ns
        self.awake: datetime | None = None
        self.ended = False

    def _decoder(self, state: bytes | None) -> RequestPartition | GpuPartition:
        source = self.source
        try:
            return source.make(source.topic, self.number, source.format, state)
        except StateUnreadable as problem:
            structlog.get_logger().warning("cold start", component=self.name, why=str(problem))
            return source.make(source.topic, self.number, source.format, None)

    def _first(self, start: int) -> int:
        """The offset that `earliest` or `latest` means now: a restart before the first message must not move it."""
        bounds = self.reader.bounds(self.source.topic, self.number)
        return start if bounds is None else bounds[0 if start == OFFSET_BEGINNING else 1]

    def next_batch(self) -> list[Item[Any]]:
        source = self.source
        if self.ended or source.stopping():
            raise StopIteration
        if not self.queue:
            self.reader.poll(source.block_messages)
        if not self.queue:
            self.awake = datetime.now(UTC) + timedelta(seconds=POLL_S)
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
        if self.reader.remove(self.source.topic, self.number):
            self.source.forget(self.reader)


def _timestamp_ms(message: Any) -> int:
    kind, at_ms = message.timestamp()
    return NO_TIMESTAMP if kind == TIMESTAMP_NOT_AVAILABLE else int(at_ms)
