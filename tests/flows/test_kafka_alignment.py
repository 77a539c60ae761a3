"""Partitions of very different thickness are read at one pace of event time."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from flows.assembly import Parts
from flows.demo.broker import EmbeddedBroker
from flows.pricing import PriceBook
from flows.settings import Settings
from flows.sources.alignment import Alignment
from flows.sources.kafka import KafkaSource
from flows.sources.kafka_topics import Topic
from schemas.formats import get_format
from tests.flows.kafka_feed import Opened, count

S = 1_000_000_000
T0 = 1_767_268_800
AHEAD_S = 60
HOUR_S = 3_600
BLOCK = 50


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    it = EmbeddedBroker()
    yield it
    it.close()


def opened(broker: EmbeddedBroker, every_s: dict[int, float], *, stamped: bool = True) -> tuple[Opened, int]:
    """A source over an hour of partitions with one event per so many seconds each."""
    topic = f"t-{uuid.uuid4().hex[:8]}"
    broker.create(topic)
    producer = Producer({"bootstrap.servers": broker.address, "log_level": 0})
    n = 0
    for partition, step in every_s.items():
        for i in range(int(HOUR_S / step)):
            at = T0 + i * step
            event = {"at": at, "provider": "openai", "model": "gpt-4o", "status": 200}
            stamp = {"timestamp": int(at * 1_000)} if stamped else {}
            producer.produce(topic, json.dumps(event).encode(), partition=partition, **stamp)
            n += 1
    assert producer.flush(20) == 0
    source = KafkaSource(
        Topic(topic, tuple(every_s)),
        format=get_format("request"),
        options={"bootstrap.servers": broker.address, "log_level": 0},
        make=Parts(Settings(), PriceBook.load(None)).partition,
        start="earliest",
        block_messages=BLOCK,
        idle_timeout_s=1e9,
        align=Alignment(AHEAD_S * S),
        wall_ns=lambda: None,
    )
    return Opened(source, {}), n


def farthest_ahead_s(it: Opened, partitions: int) -> float:
    """How far any partition was ahead of the slowest while that one had something to read."""
    at = {f"{it.source.topic}/{p}": -1 for p in range(partitions)}
    left = {name: sum(i.partition == name and i.batch is not None for i in it.items) for name in at}
    worst = 0.0
    for item in it.items:
        if item.batch is not None:
            at[item.partition] = item.watermark_ns
            left[item.partition] -= 1
            waited_for = [ns for name, ns in at.items() if left[name] and ns > 0]
            if waited_for:
                worst = max(worst, (item.watermark_ns - min(waited_for)) / S)
    return worst


def test_a_thin_partition_does_not_run_away_from_a_thick_one(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.sources.kafka_partition.SPAN_MS", AHEAD_S * 1_000)
    it, n = opened(broker, {0: 1.0, 1: 20.0, 2: 1.0})
    it.read(count(n))
    assert len(it.messages()) == len(set(it.messages())) == n
    # One stretch, and the gap before it, beyond the point at which it rests.
    assert farthest_ahead_s(it, 3) <= 2 * AHEAD_S + 20.0
    it.close()


def test_resting_partitions_make_room_and_lose_nothing(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.sources.kafka_reader.QUEUED_BLOCKS", 2)
    it, n = opened(broker, {0: 1.0, 1: 10.0, 2: 10.0, 3: 10.0})
    made_room = []
    reader = next(iter(it.parts.values())).reader
    put_back = reader._make_room
    monkeypatch.setattr(reader, "_make_room", lambda: made_room.append(put_back()) or made_room[-1])
    all_read = count(n)

    def positions_are_what_was_read(opened: Opened) -> bool:
        """A crash may come at any moment: a position beyond what was handed on would be a loss."""
        read = Counter(name for name, _ in opened.messages())
        assert {name: part.offset for name, part in opened.parts.items()} == {name: read[name] for name in opened.parts}
        return all_read(opened)

    it.read(positions_are_what_was_read)
    assert any(made_room), "the test must reach the limit"
    assert len(it.messages()) == len(set(it.messages())) == n
    order = [offset for name, offset in it.messages() if name.endswith("/1")]
    assert order == sorted(order)
    it.close()


def test_without_time_stamps_event_time_alone_holds_partitions_together(broker: EmbeddedBroker) -> None:
    it, n = opened(broker, {0: 1.0, 1: 4.0}, stamped=False)
    it.read(count(n))
    assert len(it.messages()) == n
    assert farthest_ahead_s(it, 2) <= AHEAD_S + 4.0 * BLOCK
    it.close()
