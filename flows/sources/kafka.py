"""Kafka as a source: one consumer per worker reads all of the worker's partitions.

Positions are ours: they travel in the flow's saved state together with each partition's decoder, never in a consumer
group, so that state and position cannot disagree.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Set
from typing import Any

from bytewax.inputs import FixedPartitionedSource
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END

from flows.sources.alignment import Alignment
from flows.sources.files import MakePartition
from flows.sources.item import Item
from flows.sources.kafka_partition import KafkaPartition
from flows.sources.kafka_reader import Key, PartitionReader
from flows.sources.kafka_topics import Topic
from schemas.formats.base import Format


class KafkaSource(FixedPartitionedSource[Item[Any], Any]):
    """Reads a topic.

    Parameters
    ----------
    topic
        What to read.
    format
        How messages are read.
    options
        librdkafka options, `bootstrap.servers` among them.
    make
        Builds each partition's decoder.
    start
        `earliest` or `latest`: where a topic without any saved position begins.
    out_of_range
        `earliest`, `latest` or `stop`: where to go on when a position is not in the log any more.
    known
        Partitions with a saved position. Those of the same topic without one were added since, and are read from their
        beginning.
    identify
        Asks for the topic's identity of now; empty if nobody knows.
    held
        While it says so nothing is handed on: the topic is not the one that positions belong to.
    block_messages
        Messages per block at most.
    idle_timeout_s
        A partition that is silent for so long, and caught up, is idle; its watermark then follows the clock.
    align
        Keeps the partitions together that share it; by default those of this topic.
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
        topic: Topic,
        *,
        format: Format,
        options: Mapping[str, Any],
        make: MakePartition,
        start: str,
        out_of_range: str = "earliest",
        known: Set[str] = frozenset(),
        identify: Callable[[], str] = lambda: "",
        held: Callable[[], bool] = lambda: False,
        block_messages: int,
        idle_timeout_s: float,
        align: Alignment | None = None,
        stop_at_end: Callable[[], bool] | None = None,
        stopping: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int | None] = time.time_ns,
    ) -> None:
        self.topic, self.identity = topic.name, topic.identity
        self.partitions = {f"{topic.name}/{p}": p for p in topic.partitions}
        self.format = format
        self.options = options
        self.make = make
        self.start = OFFSET_BEGINNING if start == "earliest" else OFFSET_END
        self.out_of_range = out_of_range
        self.known = known & self.partitions.keys()
        self.identify = identify
        self.held = held
        self.block_messages = block_messages
        self.idle_timeout_s = idle_timeout_s
        self.align = align or Alignment()
        self.stop_at_end = stop_at_end
        self.stopping = stopping
        self.monotonic = monotonic
        self.wall_ns = wall_ns
        self.parts: dict[str, KafkaPartition] = {}
        """Those of this process."""
        self._readers: dict[int, PartitionReader] = {}
        self._lock = threading.Lock()

    def list_parts(self) -> list[str]:
        """Names of the partitions."""
        return list(self.partitions)

    def build_part(self, step_id: str, for_part: str, resume_state: Any | None) -> KafkaPartition:
        """Read one partition, from the saved position if there is one."""
        with self._lock:
            thread = threading.get_ident()
            if thread not in self._readers:
                self._readers[thread] = PartitionReader(self.options, self._on_gone)
            part = KafkaPartition(self, self._readers[thread], for_part, resume_state)
            self.parts[for_part] = part
            return part

    def _on_gone(self, key: Key, position: int, low: int, high: int) -> int:
        return self.parts[f"{key[0]}/{key[1]}"].go_on(position, low, high)

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
