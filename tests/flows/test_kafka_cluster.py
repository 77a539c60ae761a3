"""Three real brokers that replicate: a partition's leader dies while it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.flows.kafka_feed import Feed, count, event, parts_of_a_flow
from tests.servers.cache import free_port
from tests.servers.kafka import KafkaCluster

PARTITIONS = 3


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KafkaCluster]:
    it = KafkaCluster(tmp_path, [free_port() for _ in range(6)])
    it.start()
    yield it
    it.stop()


def leaders(feed: Feed) -> dict[int, int]:
    client = AdminClient({"bootstrap.servers": feed.address, "log_level": 0})
    return {p: m.leader for p, m in client.list_topics(feed.topic, timeout=20).topics[feed.topic].partitions.items()}


@pytest.mark.slow
@pytest.mark.server
def test_a_change_of_leader_neither_loses_nor_doubles(cluster: KafkaCluster) -> None:
    feed = Feed(cluster.bootstrap_servers, parts_of_a_flow(), real=True)
    admin = AdminClient({"bootstrap.servers": feed.address, "log_level": 0})
    replicated = NewTopic(feed.topic, PARTITIONS, 3, config={"min.insync.replicas": "2"})
    admin.create_topics([replicated])[feed.topic].result(30)
    producer = Producer({"bootstrap.servers": feed.address, "enable.idempotence": True, "log_level": 0})

    def send(first: int, last: int) -> None:
        for i in range(first, last):
            for p in range(PARTITIONS):
                producer.produce(feed.topic, event(i), partition=p)
        assert producer.flush(60) == 0

    opened = feed.open(feed.source(block_messages=50))
    send(0, 200)
    opened.read(count(300))
    before = leaders(feed)
    cluster.brokers[before[0]].kill()
    send(200, 400)
    opened.read(count(PARTITIONS * 400))
    assert leaders(feed)[0] not in (before[0], -1)
    cluster.brokers[before[0]].start()
    send(400, 500)
    opened.read(count(PARTITIONS * 500))
    expected = [(f"{feed.topic}/{p}", offset) for p in range(PARTITIONS) for offset in range(500)]
    assert sorted(opened.messages()) == expected
    assert sum(i.lost for i in opened.items) == 0
    opened.close()
