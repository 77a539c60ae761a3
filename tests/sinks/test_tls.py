"""Certificates are checked by default, by everything that connects to anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import urllib3
from confluent_kafka import Producer

from flows.settings import ClickHouse
from schemas.errors import DeliveryFailed
from schemas.incident import Incident
from sinks.alertmanager import Alertmanager
from sinks.base import Sink
from sinks.clickhouse.client import connect
from sinks.kafka import KafkaTopic
from sinks.pagerduty import PagerDuty
from sinks.slack import Slack
from sinks.webhook import Webhook
from tests.servers.tls import CERTIFICATE, SelfSigned, self_signed
from tests.sinks.incidents import incident

KEY = "0123456789abcdef0123456789ABCDEF"
SINKS: dict[str, Callable[[str], Sink[Incident]]] = {
    "slack": lambda url: Slack("ops", url),
    "pagerduty": lambda url: PagerDuty("ops", KEY, url=url),
    "alertmanager": lambda url: Alertmanager("ops", url),
    "webhook": lambda url: Webhook("ops", url),
}


@pytest.fixture
def server() -> Iterator[SelfSigned]:
    with self_signed() as it:
        yield it


def test_who_trusts_the_certificate_gets_through(server: SelfSigned) -> None:
    with urllib3.PoolManager(ca_certs=str(CERTIFICATE)) as pool:
        assert pool.request("POST", f"https://localhost:{server.port}/x", retries=False).status == 200
    assert server.received.startswith(b"POST /x")


@pytest.mark.parametrize("kind", sorted(SINKS))
def test_a_receiver_with_an_unknown_certificate_gets_nothing(kind: str, server: SelfSigned) -> None:
    sink = SINKS[kind](f"https://localhost:{server.port}/hook")
    with pytest.raises(DeliveryFailed, match="TLS failed") as caught:
        sink.write([incident()])
    sink.close()
    assert caught.value.retryable
    assert (server.handshakes, server.received) == (1, b"")


def test_a_database_with_an_unknown_certificate_gets_no_password(server: SelfSigned) -> None:
    assert ClickHouse().verify_tls
    with pytest.raises(DeliveryFailed, match=r"(?i)certificate") as caught:
        connect(f"https://tidegauge@localhost:{server.port}/x", password="hunter2-very-secret")
    assert "hunter2" not in str(caught.value)
    assert server.handshakes
    assert server.received == b""


def test_a_broker_with_an_unknown_certificate_gets_no_password(server: SelfSigned) -> None:
    options: dict[str, str | int | bool] = {
        "bootstrap.servers": f"localhost:{server.port}",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "tidegauge",
        "sasl.password": "hunter2-very-secret",
    }
    sink = KafkaTopic("bus", options=options, timeout_s=1.0)
    with pytest.raises(DeliveryFailed) as caught:
        sink.write([incident()])
    sink.close()
    assert "hunter2" not in str(caught.value)
    said: list[str] = []
    probe = Producer({**options, "log_level": 0, "error_cb": lambda error: said.append(error.str())})
    deadline = time.monotonic() + 30
    while not any("certificate verify failed" in text for text in said) and time.monotonic() < deadline:
        probe.poll(0.1)
    assert any("certificate verify failed" in text for text in said), said
    assert server.received == b""
