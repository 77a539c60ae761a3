"""SASL/SCRAM and TLS against a real listener: every client of ours logs in, and nobody learns the password."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka.admin import AdminClient, NewTopic

from flows.dead_letter_topic import DeadLetterTopic
from flows.sources.kafka_topics import Brokers
from schemas.dead_letter import DeadLetter
from schemas.errors import BadSettings, Reason
from sinks.kafka import KafkaTopic
from tests.commands.command_line import tidegauge
from tests.flows.kafka_feed import Feed, count, parts_of_a_flow
from tests.servers.cache import free_port
from tests.servers.certificates import Authority
from tests.servers.kafka import KafkaBroker
from tests.sinks.incidents import incident

pytestmark = pytest.mark.server

PASSWORD = "open-sesame-4711"
WRONG = "open-barley-0815"
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@dataclass
class Guarded:
    """A broker with a SASL_SSL listener, and how to log in there."""

    broker: KafkaBroker
    address: str
    trusted: Path
    untrusted: Path

    def options(self, password: str = PASSWORD, ca: Path | None = None) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.address,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": "tidegauge",
            "sasl.password": password,
            "ssl.ca.location": str(ca or self.trusted),
        }


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    ours, others = Authority(folder / "ca"), Authority(folder / "others")
    port = free_port()
    broker = KafkaBroker(
        folder / "kafka",
        free_port(),
        free_port(),
        listener=("SASL_SSL", port),
        scram=("tidegauge", PASSWORD),
        settings={
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(ours.issue("broker")),
            "sasl.enabled.mechanisms": "SCRAM-SHA-256",
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": SCRAM_LOGIN,
        },
    )
    broker.start()
    yield Guarded(broker, f"127.0.0.1:{port}", ours.certificate, others.certificate)
    broker.kill()


def test_every_client_works_over_sasl_and_tls(guarded: Guarded) -> None:
    options = guarded.options()
    feed = Feed(guarded.broker.bootstrap_servers, parts_of_a_flow(), real=True)
    admin = AdminClient({"bootstrap.servers": feed.address})
    dead, incidents = f"{feed.topic}-dead", f"{feed.topic}-incidents"
    for future in admin.create_topics([NewTopic(t, 1, 1) for t in (feed.topic, dead, incidents)]).values():
        future.result(20)
    feed.send(0, 1, 2, 3)
    brokers = Brokers(options)
    topic = brokers.topic(feed.topic)
    assert topic.identity
    assert brokers.ends(topic) == {0: 3}
    opened = feed.open(feed.source(options=options))
    opened.read(count(3))
    opened.close()
    letters = DeadLetterTopic(dead, options)
    letters.put(
        [DeadLetter(reason=Reason.EMPTY, detail="", topic=feed.topic, partition=0, offset=0, at_ns=0, payload="")]
    )
    letters.close()
    assert (letters.sent, letters.failed) == (1, 0)
    sink = KafkaTopic("incidents", incidents, options=options)
    sink.write([incident()])
    sink.close()
    assert brokers.ends(brokers.topic(dead)) == {0: 1}
    assert brokers.ends(brokers.topic(incidents)) == {0: 1}
    brokers.close()


@pytest.mark.parametrize("what", ["password", "certificate", "plaintext"])
def test_who_is_refused_learns_why_at_once(what: str, guarded: Guarded) -> None:
    options = {
        "password": guarded.options(password=WRONG),
        "certificate": guarded.options(ca=guarded.untrusted),
        "plaintext": {"bootstrap.servers": guarded.address},
    }[what]
    brokers = Brokers(options)
    expected = {
        "password": r"refuses us .*SCRAM.*and the password",
        "certificate": r"refuses us .*certificate.*ssl\.ca\.location",
        "plaintext": r"no broker answers at .*kafka\.bootstrap_servers",
    }[what]
    with pytest.raises(BadSettings, match=expected):
        brokers.topic("t", timeout_s=20.0 if what != "plaintext" else 2.0)
    brokers.close()


def test_a_run_with_a_wrong_password_ends_with_one_clear_line_and_without_the_password(
    guarded: Guarded, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(WRONG)
    options = {k: v for k, v in guarded.options().items() if k not in ("sasl.password", "bootstrap.servers")}
    settings = {
        "state_dir": str(tmp_path / "state"),
        "kafka": {"bootstrap_servers": guarded.address, "options": options, "sasl_password_file": str(secret)},
        "clickhouse": None,
        "metrics": {"enabled": False},
    }
    (tmp_path / "tidegauge.yaml").write_text(yaml.safe_dump(settings))
    done = tidegauge("run", "--config", tmp_path / "tidegauge.yaml")
    assert done.returncode == 2
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith(f"kafka: {guarded.address} refuses us")
    assert len(done.stderr.splitlines()) == 1
    assert WRONG.encode() not in done.stderr + done.stdout
    shown = tidegauge("check", "--config", tmp_path / "tidegauge.yaml")
    assert shown.returncode == 0
    assert WRONG.encode() not in shown.stdout
