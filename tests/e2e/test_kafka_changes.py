"""`tidegauge run` while its Kafka changes: partitions come, topics are made anew, messages expire, brokers leave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.e2e.company import Company
from tests.e2e.live import Live, wait_for
from tests.servers.cache import free_port
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.server

PARTITIONS = 4


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker of these tests' own: they stop it."""
    it = KafkaBroker(tmp_path_factory.mktemp("kafka"), free_port(), free_port())
    it.start()
    yield it
    it.kill()


class Stage:
    """An installation over topics of its own, with what was sent to them.

    Times are of now, since the watch over the flow itself goes by the clock.
    """

    def __init__(self, folder: Path, broker: KafkaBroker, clickhouse: str, **settings: Any) -> None:
        self.address = broker.bootstrap_servers
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        company = Company(minutes=1, rate=1.0)  # for the names of its topics
        company.create(self.address)
        self.topic = company.requests_topic
        self.live = Live(folder, company, self.address, clickhouse, **settings)
        self.sent = 0
        self.begun = time.time()

    def send(self, partition: int, n: int, *, after_s: float = 0.0) -> None:
        """Send events that lie some seconds after the test's begin."""
        producer = Producer({"bootstrap.servers": self.address, "log_level": 0})
        for i in range(n):
            event = {"at": self.begun + after_s + i / 1000, "provider": "openai", "model": "gpt-4o", "status": 200}
            producer.produce(self.topic, json.dumps(event).encode(), partition=partition)
        assert producer.flush(60) == 0
        self.sent += n

    def stored(self) -> int:
        """Requests in the database, each position once."""
        self.live.check_alive()
        rows = self.live.query("SELECT count() FROM requests FINAL")
        return int(rows[0][0]) if rows else 0

    def in_windows(self) -> int:
        """Requests in closed windows."""
        rows = self.live.query("SELECT sum(requests) FROM request_windows FINAL WHERE grouping = ''")
        return int(rows[0][0]) if rows else 0

    def set(self, **kafka: Any) -> None:
        """Change settings of `kafka` for the next start."""
        settings = yaml.safe_load(self.live.config.read_text())
        settings["kafka"] |= kafka
        self.live.config.write_text(yaml.safe_dump(settings))

    def start(self, *arguments: str) -> None:
        self.live.start(*arguments)
        wait_for("readiness", self.live.is_ready)

    def close_windows(self, partitions: int) -> None:
        """Later events in every partition, so that all windows before them close."""
        for p in range(partitions):
            self.send(p, 1, after_s=200.0)
        wait_for("the windows", lambda: self.in_windows() == self.sent - partitions)


Stages = Callable[..., Stage]


@pytest.fixture
def stage(tmp_path: Path, broker: KafkaBroker, clickhouse_server: str) -> Iterator[Stages]:
    made: list[Stage] = []

    def make(**settings: Any) -> Stage:
        it = Stage(tmp_path / "one", broker, clickhouse_server, **settings)
        made.append(it)
        return it

    yield make
    for it in made:
        it.live.kill()
        it.live.drop()


def test_partitions_added_at_run_time_are_read_without_a_restart_and_nothing_is_doubled(stage: Stages) -> None:
    it = stage()
    it.start()
    for p in range(PARTITIONS):
        it.send(p, 50)
    wait_for("the first requests", lambda: it.stored() == it.sent)
    it.admin.create_partitions([NewPartitions(it.topic, PARTITIONS + 2)])[it.topic].result(20)
    it.send(PARTITIONS, 30)  # before anybody has noticed
    it.send(0, 20)
    wait_for("the new partition", lambda: it.stored() == it.sent)
    it.send(PARTITIONS + 1, 10)
    it.close_windows(PARTITIONS + 2)
    assert it.stored() == it.sent
    assert len(it.live.processes) == 1
    assert it.live.metric("tidegauge_unread_partitions") == 0
    assert "kafka: new partition, read from its beginning" in it.live.log()
    it.live.stop()


def test_a_cluster_of_processes_says_that_it_does_not_read_added_partitions_until_its_restart(stage: Stages) -> None:
    it = stage()
    cluster = ("--process", "0", "--address", f"127.0.0.1:{free_port()}")
    it.start(*cluster)
    it.admin.create_partitions([NewPartitions(it.topic, PARTITIONS + 1)])[it.topic].result(20)
    it.send(PARTITIONS, 10)
    it.send(0, 10)
    _, said = wait_for("word of it", lambda: _unready(it.live))
    assert f"1 new partitions of {it.topic} are not read yet" in said
    assert it.live.metric("tidegauge_unread_partitions") == 1
    wait_for("the others", lambda: it.stored() == 10)
    it.live.stop()
    it.start(*cluster)
    wait_for("the new partition", lambda: it.stored() == 20)
    it.live.stop()


def test_a_topic_made_anew_at_run_time_is_read_from_its_beginning(stage: Stages) -> None:
    it = stage()
    it.start()
    it.send(0, 100)
    wait_for("the first requests", lambda: it.stored() == it.sent)
    it.admin.delete_topics([it.topic])[it.topic].result(20)
    wait_for("word of it", lambda: "cannot be read" in it.live.get("/readyz")[1])
    it.admin.create_topics([NewTopic(it.topic, PARTITIONS, 1)])[it.topic].result(20)
    it.send(0, 150, after_s=1.0)
    wait_for("the new topic", lambda: it.stored() == it.sent)
    wait_for("readiness", it.live.is_ready)
    it.close_windows(PARTITIONS)
    assert '"made_anew": true' in it.live.log()
    it.live.stop()


@pytest.mark.slow
def test_what_expired_while_the_process_was_down_is_counted_and_alarmed_once(stage: Stages) -> None:
    it = stage(
        windows={"shards": 4, "idle_timeout_s": 1.0},
        incidents={"kinds": {"pipeline_health": {"open_after": 1, "open_of": 1}}},
    )
    it.start()
    it.send(2, 10)
    wait_for("the first requests", lambda: it.stored() == 10)
    it.live.stop()
    it.send(2, 500)
    it.admin.delete_records([TopicPartition(it.topic, 2, 410)])[TopicPartition(it.topic, 2)].result(20)
    it.set(out_of_range="stop")
    assert it.live.start().wait(60) == 1
    assert it.live.log().splitlines()[-1].startswith(f"kafka: position 10 of {it.topic}/2 cannot be read any more")
    it.live.kill()
    it.set(out_of_range="earliest")
    it.start()
    wait_for("what is left", lambda: it.stored() == 110)
    assert it.live.metric("tidegauge_lost_messages_total") == 400
    found = wait_for(
        "the incident",
        lambda: it.live.query("SELECT summary, incident_id FROM incidents FINAL WHERE kind = 'pipeline_health'"),
    )
    assert f"400 of {it.topic}/2" in found[0][0]
    it.live.kill()
    it.start()
    wait_for("readiness", it.live.is_ready)
    assert it.live.metric("tidegauge_lost_messages_total") == 400
    incidents = it.live.query("SELECT uniqExact(incident_id) FROM incidents WHERE kind = 'pipeline_health'")
    assert incidents == [(1,)]
    it.live.stop()


def test_a_broker_that_is_away_is_said_without_a_storm_and_nothing_is_lost(stage: Stages, broker: KafkaBroker) -> None:
    it = stage()
    it.start()
    it.send(0, 100)
    wait_for("the first requests", lambda: it.stored() == it.sent)
    broker.kill()
    before = len(it.live.log().splitlines())
    status, said = wait_for("word of it", lambda: _unready(it.live))
    assert status == 503
    assert "no broker answers" in said
    away = time.monotonic()
    wait_for("some seconds without a broker", lambda: time.monotonic() - away > 5)
    assert len(it.live.log().splitlines()) - before < 20
    broker.start()
    it.send(0, 100)
    wait_for("readiness", it.live.is_ready)
    wait_for("the rest", lambda: it.stored() == it.sent)
    it.close_windows(PARTITIONS)
    it.live.stop()


def _unready(live: Live) -> tuple[int, str] | None:
    status, said = live.get("/readyz")
    return (status, said) if status == 503 else None
