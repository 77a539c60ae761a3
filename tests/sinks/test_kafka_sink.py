from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.errors import DeliveryFailed
from schemas.incident import Incident
from sinks.courier import Courier
from sinks.kafka import KafkaTopic
from sinks.outbox import Outbox
from tests.servers.cache import free_port
from tests.servers.kafka import KafkaBroker
from tests.sinks.incidents import incident
from tests.sinks.scripted import Clock, run


@pytest.fixture
def broker() -> Iterator[str]:
    """The mock cluster of librdkafka: the real wire protocol, in this process."""
    cluster = Producer({"bootstrap.servers": "x", "test.mock.num.brokers": 1})
    yield ",".join(f"{b.host}:{b.port}" for b in cluster.list_topics(timeout=5).brokers.values())
    cluster.flush(1)  # the cluster lives as long as the client that made it


def read(broker: str, topic: str, n: int) -> list[tuple[bytes, Incident]]:
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "auto.offset.reset": "earliest"})
    partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    got: list[tuple[bytes, Incident]] = []
    for _ in range(100):
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            got.append((message.key(), msgspec.json.decode(message.value(), type=Incident)))
        if len(got) >= n:
            break
    consumer.close()
    return got


def test_every_revision_arrives_in_order_under_its_incidents_key(broker: str) -> None:
    sink = KafkaTopic("bus", options={"bootstrap.servers": broker})
    sent = [incident(n, r) for r in (1, 2, 3) for n in (1, 2)]
    sink.write(sent)
    sink.close()
    got = read(broker, "ai.incidents", 6)
    assert sorted(got, key=lambda g: (g[1].revision, g[1].incident_id)) == [(i.incident_id.encode(), i) for i in sent]
    for n in (1, 2):
        assert [i.revision for _, i in got if i.incident_id == incident(n).incident_id] == [1, 2, 3]


def test_unreachable_brokers_are_retryable_and_nothing_is_left_in_flight() -> None:
    options = {"bootstrap.servers": "127.0.0.1:1", "sasl.password": "hunter2", "message.timeout.ms": 300}
    sink = KafkaTopic("bus", options=options, timeout_s=0.3)
    with pytest.raises(DeliveryFailed) as caught:
        sink.write([incident()])
    assert caught.value.retryable
    assert "hunter2" not in str(caught.value)
    assert "1 of 1 messages: _MSG_TIMED_OUT" in str(caught.value), "its fate is known, so it cannot arrive later"
    sink.close()


def test_too_large_message_is_permanent(broker: str) -> None:
    sink = KafkaTopic("bus", options={"bootstrap.servers": broker, "message.max.bytes": 2_000})
    with pytest.raises(DeliveryFailed) as caught:
        sink.write([incident(1), incident(2, summary="x" * 5_000)])
    assert not caught.value.retryable
    assert "MSG_SIZE_TOO_LARGE" in str(caught.value)
    sink.write([incident(1)])
    sink.close()


@pytest.mark.server
@pytest.mark.slow
def test_a_topic_that_was_away_gets_every_revision_in_order_once_it_is_there(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "kafka", free_port(), free_port())
    clock, outbox = Clock(), Outbox(tmp_path / "outbox.db")
    sink = KafkaTopic("bus", options={"bootstrap.servers": broker.bootstrap_servers}, timeout_s=1.0)
    courier = Courier("bus", sink, outbox, clock=clock, jitter=lambda: 0.5, traits=sink.traits)
    try:
        outbox.accept([("bus", incident(n, r, "updated")) for r in (1, 2) for n in (1, 2)], clock())
        run(courier, clock, 2)
        outbox.accept([("bus", incident(n, 3, "resolved")) for n in (1, 2)], clock())
        assert courier.counters["retried"] >= 4
        broker.start()
        for _ in range(30):  # the topic is made by the first attempt
            run(courier, clock, 60)
            if outbox.idle(["bus"]):
                break
        assert outbox.idle(["bus"])
        assert courier.counters["sent"] == 6
        assert courier.counters["dead"] == 0
        got = read(broker.bootstrap_servers, "ai.incidents", 6)
        for n in (1, 2):
            assert [i.revision for _, i in got if i.incident_id == incident(n).incident_id] == [1, 2, 3]
    finally:
        sink.close()
        broker.kill()
        outbox.close()
