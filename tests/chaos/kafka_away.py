"""Kafka's brokers killed: one of three, so that leaders change, and the only one there is."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.form import Form, Servers
from tests.chaos.report import Row
from tests.chaos.stage import Stage
from tests.servers.cache import free_port
from tests.servers.kafka import KafkaBroker, KafkaCluster


def scenario(servers: Servers, form: Form) -> Iterator[Row]:
    """Both, one after the other."""
    yield _leader(servers, form)
    yield _all(servers, form)


def _leader(servers: Servers, form: Form) -> Row:
    cluster = KafkaCluster(servers.folder / "kafka-three", [free_port() for _ in range(6)])
    cluster.start()
    try:
        with Stage(
            servers.folder / "leader", kafka=cluster.bootstrap_servers, clickhouse=servers.clickhouse,
            rate_per_s=form.rate_per_s / 2, replication=3,
        ) as stage:  # fmt: skip
            stage.phase("before", form.before_s)
            cluster.brokers[1].kill()
            stage.phase("during", form.during_s)
            cluster.brokers[1].start()
            stage.phase("after", form.after_s)
            stage.finish()
            return stage.row(f"one of three Kafka brokers killed, back after {form.during_s:g} s")
    finally:
        cluster.stop()


def _all(servers: Servers, form: Form) -> Row:
    broker = KafkaBroker(servers.folder / "kafka-one", free_port(), free_port())
    broker.start()
    # Away for longer than a silent partition is waited for: silence of the broker is not silence of the producers. And
    # that is longer than producers take to come back (their back-off ends at 10 s).
    idle_s = 20.0
    away_s = max(form.during_s, idle_s + 5.0)
    try:
        with Stage(
            servers.folder / "broker", kafka=broker.bootstrap_servers, clickhouse=servers.clickhouse,
            rate_per_s=form.rate_per_s / 2, settings={"windows": {"idle_timeout_s": idle_s}},
        ) as stage:  # fmt: skip
            stage.phase("before", form.before_s)
            broker.kill()
            stage.phase("during", away_s)
            broker.start()
            stage.phase("after", max(form.after_s, away_s))
            stage.finish()
            return stage.row(f"the only Kafka broker killed, back after {away_s:g} s")
    finally:
        broker.stop()
