"""A simulated company's events in Kafka topics of a test's own, with bad messages among them and an end that shows."""

from __future__ import annotations

import json
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from flows.simulate import planned_incidents, simulate

PARTITIONS = 4
END_AFTER_S = 900
"""The closing events lie so long after the last minute, so that incidents resolve and every window is closed."""

Message = tuple[str, int, bytes | None, int]
"""Topic, partition, value, time in ms."""


@dataclass
class Company:
    """Events of some minutes, ready to be sent.

    Parameters
    ----------
    minutes, rate, seed
        As for `simulate`.
    """

    minutes: int = 40
    rate: float = 8.0
    seed: int = 7
    requests: int = 0
    samples: int = 0
    refused: int = 0
    """Messages that must become dead letters."""
    batches: list[list[Message]] = field(default_factory=list)
    """One per minute; the last one holds the closing events alone."""

    def __post_init__(self) -> None:
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        self.start = now - timedelta(minutes=self.minutes + 60)
        self.end_s = int(self.start.timestamp()) + self.minutes * 60
        suffix = uuid.uuid4().hex[:8]
        self.requests_topic, self.gpus_topic = f"requests-{suffix}", f"gpus-{suffix}"
        self.incidents_topic, self.dead_topic = f"incidents-{suffix}", f"dead-{suffix}"
        # No faulty producers: here every event that comes back must have been sent.
        planned = [
            p
            for p in planned_incidents("default", minutes=self.minutes, seed=self.seed, start=self.start)
            if p.kind != "data_quality"
        ]
        for minute in simulate(
            minutes=self.minutes, seed=self.seed, rate=self.rate, start=self.start, incidents=planned
        ):
            batch = list(self._minute(self.requests_topic, minute.requests, minute.request_keys, minute.request_at_ns))
            self.requests += len(batch)
            spoiled = list(self._spoiled(batch))
            self.refused += len(spoiled)
            samples = list(self._minute(self.gpus_topic, minute.gpus, minute.gpu_keys, minute.gpu_at_ns))
            self.samples += len(samples)
            self.batches.append(batch + spoiled + samples)
        self.batches.append(list(self._closing()))
        self.requests += 2 * PARTITIONS
        self.samples += 2 * PARTITIONS

    @property
    def messages(self) -> int:
        """Messages in all."""
        return sum(map(len, self.batches))

    @staticmethod
    def _minute(topic: str, values: list[bytes], keys: list[bytes], at_ns: object) -> Iterator[Message]:
        for value, key, at in zip(values, keys, at_ns.tolist(), strict=True):  # type: ignore[attr-defined]
            yield topic, zlib.crc32(key) % PARTITIONS, value, at // 1_000_000

    def _spoiled(self, batch: list[Message]) -> Iterator[Message]:
        for i, (topic, partition, value, at_ms) in enumerate(batch):
            if i % 200 == 7:
                yield topic, partition, (value or b"")[:40], at_ms
            elif i % 200 == 107:
                yield topic, partition, None, at_ms

    def _closing(self) -> Iterator[Message]:
        for after in (END_AFTER_S, 2 * END_AFTER_S):
            at = self.end_s + after
            for p in range(PARTITIONS):
                request = {"at": at, "provider": "openai", "model": "gpt-5", "status": 200, "team": "closing"}
                gpu = {"at": at, "node": "closing", "gpu_uuid": f"GPU-closing-{p}", "util": 0.5}
                yield self.requests_topic, p, json.dumps(request).encode(), at * 1_000
                yield self.gpus_topic, p, json.dumps(gpu).encode(), at * 1_000

    def create(self, bootstrap_servers: str) -> None:
        """Make the topics; their messages do not expire, however old their time stamps are."""
        admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        names = (self.requests_topic, self.gpus_topic, self.incidents_topic, self.dead_topic)
        made = admin.create_topics(
            [NewTopic(n, num_partitions=PARTITIONS, replication_factor=1, config={"retention.ms": "-1"}) for n in names]
        )
        for future in made.values():
            future.result(20)

    def send(self, bootstrap_servers: str, *, seconds: float = 0.0, first: int = 0, last: int | None = None) -> None:
        """Send batches `first` to `last`, spread over some seconds."""
        producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "linger.ms": 5,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        batches = self.batches[first:last]
        begun = time.monotonic()
        for i, batch in enumerate(batches):
            for topic, partition, value, at_ms in batch:
                producer.produce(topic, value, partition=partition, timestamp=at_ms)
            if producer.flush(30):
                raise RuntimeError("the broker does not take the messages")
            rest = begun + seconds * (i + 1) / len(batches) - time.monotonic()
            if rest > 0:
                time.sleep(rest)
