"""A topic with its producer, and sources over it as one worker of the engine has them, with a clock of the test's."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from flows.assembly import Parts
from flows.pricing import PriceBook
from flows.settings import Settings, Windows
from flows.sources.item import Item
from flows.sources.kafka import KafkaSource
from flows.sources.kafka_topics import Brokers, Topic
from schemas.formats import get_format

T0 = 1_767_268_800
PATIENCE_S = 60.0


def parts_of_a_flow() -> Parts:
    """Decoders with 5 s of disorder."""
    return Parts(Settings(windows=Windows(disorder_s=5.0)), PriceBook.load(None))


def event(after_s: float, **fields: Any) -> bytes:
    """A request, some seconds after T0."""
    return json.dumps({"at": T0 + after_s, "provider": "openai", "model": "gpt-4o", "status": 200, **fields}).encode()


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Feed:
    """A topic with its producer, and sources over it."""

    def __init__(self, address: str, parts: Parts, *, real: bool = False) -> None:
        self.topic = f"t-{uuid.uuid4().hex[:8]}"
        self.address = address
        self.real = real
        self.make = parts.partition
        self.clock = Clock()
        self.renew()

    def renew(self) -> None:
        """A producer that knows the topic's partitions of now."""
        self.producer = Producer({"bootstrap.servers": self.address, "log_level": 0})

    def send(self, partition: int, *seconds: float) -> None:
        for s in seconds:
            self.producer.produce(self.topic, event(s), partition=partition)
        assert self.producer.flush(PATIENCE_S) == 0

    def source(self, **changes: Any) -> KafkaSource:
        arguments: dict[str, Any] = {
            "format": get_format("request"),
            "options": {"bootstrap.servers": self.address, "log_level": 0},
            "make": self.make,
            "start": "earliest",
            "block_messages": 100,
            "idle_timeout_s": 30.0,
            "monotonic": self.clock,
            "wall_ns": lambda: None,
        }
        return KafkaSource(self.described(), **(arguments | changes))

    def described(self) -> Topic:
        """The topic as the brokers have it now."""
        brokers = Brokers({"bootstrap.servers": self.address})
        try:
            if self.real:
                return brokers.topic(self.topic, timeout_s=PATIENCE_S)
            return Topic(self.topic, brokers.partitions(self.topic))  # an embedded one has no identities
        finally:
            brokers.close()

    def open(self, source: KafkaSource, saved: dict[str, Any] | None = None) -> Opened:
        return Opened(source, saved or {})


class Opened:
    """All partitions of a source, as one worker of the engine has them."""

    def __init__(self, source: KafkaSource, saved: dict[str, Any]) -> None:
        self.source = source
        self.parts: dict[str, Any] = {
            name: source.build_part("in", name, saved.get(name)) for name in source.list_parts()
        }
        self.items: list[Item[Any]] = []

    def read(self, until: Callable[[Opened], bool]) -> list[Item[Any]]:
        """Ask every partition in turn until enough has come; returns what came in this call."""
        before = len(self.items)
        deadline = time.monotonic() + PATIENCE_S
        while not until(self):
            assert time.monotonic() < deadline, "the source does not deliver"
            for name in list(self.parts):
                try:
                    self.items += self.parts[name].next_batch()
                except StopIteration:
                    self.parts.pop(name).close()
        return self.items[before:]

    def messages(self) -> list[tuple[str, int]]:
        return [(i.partition, o) for i in self.items if i.batch is not None for o in i.batch.columns.offsets.tolist()]

    def snapshot(self) -> dict[str, Any]:
        return {name: part.snapshot() for name, part in self.parts.items()}

    def close(self) -> None:
        for part in self.parts.values():
            part.close()


def count(n: int) -> Callable[[Opened], bool]:
    return lambda opened: len(opened.messages()) >= n


def caught_up(opened: Opened) -> bool:
    return all(len(p.reader.caught_up) == 4 for p in opened.parts.values())


def rounds(n: int) -> Callable[[Opened], bool]:
    """Ask every partition n times more."""
    left = [n + 1]

    def done(_: Opened) -> bool:
        left[0] -= 1
        return left[0] == 0

    return done
