"""The real process with a marked value for every secret, and everything failing: no mark is found anywhere."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition

from flows.demo.broker import EmbeddedBroker
from flows.simulate import planned_incidents, simulate
from tests.conftest import ROOT
from tests.e2e.live import wait_for
from tests.servers.cache import free_port
from tests.servers.tls import self_signed
from tests.sinks.receiver import Answer, Receiver, Request, receiver

pytestmark = pytest.mark.slow

START = datetime(2026, 6, 1, 9, tzinfo=UTC)
MINUTES = 16
TOPICS = ("ai.requests", "ai.gpus", "ai.incidents", "ai.dead-letters")

MARKS = {
    "KAFKA_PASSWORD": "MARKkafkasasl01",
    "KAFKA_KEY_PASSWORD": "MARKkafkakey02",
    "CLICKHOUSE_PASSWORD": "MARKclickhouse03",
    "SLACK": "MARKslackpath04",
    "PAGERDUTY": "MARKpagerdutyroutingkey05aaaaaaa",
    "AM_PASSWORD": "MARKampassword06",
    "AM_TOKEN": "MARKamtoken07",
    "HOOK_PATH": "MARKhookpath08",
    "HOOK_SECRET": base64.b64encode(b"MARK-webhook-signing-secret-09").decode(),
    "TLS_PATH": "MARKtlspath10",
}


def traces() -> dict[str, list[bytes]]:
    """By secret: how it would look if it had got somewhere."""
    out = {name: [text.encode(), text.encode("utf-16-le")] for name, text in MARKS.items()}
    for name, user in (("CLICKHOUSE_PASSWORD", "tidegauge"), ("AM_PASSWORD", "am")):
        out[name].append(base64.b64encode(f"{user}:{MARKS[name]}".encode()))
    return out


def found(content: bytes, allowed: str = "") -> list[str]:
    return [name for name, looks in traces().items() if name != allowed and any(look in content for look in looks)]


def echo(it: Receiver, status: int) -> None:
    """Let a receiver answer with everything that it was told."""

    def answer(request: Request) -> None:
        told = f"Code: 516. DB::Exception: {request.path} {request.headers} ".encode() + request.body[:20_000]
        it.default = Answer(status, told)

    it.on_request = answer


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """With a simulated company's events, incidents among them."""
    it = EmbeddedBroker()
    it.create(*TOPICS)
    producer = Producer({"bootstrap.servers": it.address, "log_level": 0})
    planned = planned_incidents("default", minutes=MINUTES, seed=7, start=START)
    for minute in simulate(minutes=MINUTES, seed=7, rate=4.0, start=START, incidents=planned):
        for i, (value, key) in enumerate(zip(minute.requests, minute.request_keys, strict=True)):
            producer.produce("ai.requests", value[:30] if i == 5 else value, key)
        for value, key in zip(minute.gpus, minute.gpu_keys, strict=True):
            producer.produce("ai.gpus", value, key)
    assert producer.flush(30) == 0
    yield it
    it.close()


def start(folder: Path, name: str, config: dict[str, object]) -> tuple[subprocess.Popen[bytes], Path]:
    file, log = folder / f"{name}.yaml", folder / f"{name}.log"
    file.write_text(yaml.safe_dump(config))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", "run", "--config", str(file)],
            cwd=ROOT, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT), **MARKS},
        )  # fmt: skip
    return process, log


def get(port: int, path: str) -> bytes:
    """Head and body of an answer; empty if there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return bytes(answer.read() + str(answer.headers).encode())
    except urllib.error.HTTPError as problem:
        return problem.read() + str(problem.headers).encode()
    except OSError:
        return b""


def consumed(address: str) -> bytes:
    """Everything in the topics that we write to."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "x", "enable.partition.eof": True})
    out, ends = [b""], 0
    partitions = [
        TopicPartition(topic, p, 0)
        for topic in ("ai.incidents", "ai.dead-letters")
        for p in consumer.list_topics(topic, timeout=20).topics[topic].partitions
    ]
    consumer.assign(partitions)
    for _ in range(100_000):
        message = consumer.poll(5.0)
        if message is None:
            break
        ends += message.error() is not None
        out.append(message.value() or b"")
        if ends == len(partitions):
            break
    consumer.close()
    return b"\n".join(out)


def test_no_secret_is_found_anywhere_while_everything_fails(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(receiver()) for name in ("slack", "am", "hook", "pd", "refusing", "database")
        }
        for name, status in (("slack", 400), ("am", 500), ("hook", 403), ("pd", 429), ("refusing", 400)):
            echo(servers[name], status)
        servers["database"].default = Answer(raw=b"")  # first away, then refusing
        tls = stack.enter_context(self_signed())
        (tmp_path / "slack").write_text(f"{servers['slack'].url}/services/T0/{MARKS['SLACK']}\n")
        (tmp_path / "kafka").write_text(MARKS["KAFKA_PASSWORD"])
        port = free_port()

        def database(name: str) -> dict[str, str]:
            address = servers[name].url.removeprefix("http://")
            return {"url": f"http://tidegauge@{address}/x", "password": "${CLICKHOUSE_PASSWORD}"}

        kafka = {
            "bootstrap_servers": broker.address,
            "options": {"ssl.key.password": "${KAFKA_KEY_PASSWORD}", "sasl.username": "tidegauge"},
            "sasl_password_file": str(tmp_path / "kafka"),
        }
        config: dict[str, object] = {
            "state_dir": str(tmp_path / "state"),
            "epoch_s": 0.25,
            "kafka": kafka,
            "windows": {"shards": 2, "idle_timeout_s": 3600.0},
            "incidents": {"cold_start_s": 300.0},
            "clickhouse": database("database"),
            "destinations": [
                {"name": "slack", "type": "slack", "url_file": str(tmp_path / "slack")},
                {"name": "pd", "type": "pagerduty", "url": servers["pd"].url + "/v2", "secret": "${PAGERDUTY}"},
                {"name": "am", "type": "alertmanager", "url_file": str(tmp_path / "am"), "secret": "${AM_TOKEN}"},
                {"name": "hook", "type": "webhook", "url": servers["hook"].url + "/${HOOK_PATH}",
                 "secret_file": str(tmp_path / "hook")},
                {"name": "tls", "type": "webhook", "url": f"https://localhost:{tls.port}/" + "${TLS_PATH}"},
                {"name": "topic", "type": "kafka", "topic": "ai.incidents"},
            ],
            "metrics": {"port": port},
        }  # fmt: skip
        (tmp_path / "am").write_text(servers["am"].url.replace("://", f"://am:{MARKS['AM_PASSWORD']}@"))
        (tmp_path / "hook").write_text(f"whsec_{MARKS['HOOK_SECRET']}")
        refusing = {
            **config,
            "state_dir": str(tmp_path / "state2"),
            "metrics": {"enabled": False},
            "clickhouse": database("refusing"),
        }
        no_kafka = json.loads(json.dumps(refusing))
        no_kafka["state_dir"] = str(tmp_path / "state3")
        no_kafka["clickhouse"] = None
        no_kafka["kafka"]["bootstrap_servers"] = f"localhost:{tls.port}"
        no_kafka["kafka"]["options"] |= {"security.protocol": "sasl_ssl", "sasl.mechanism": "PLAIN"}
        outputs: dict[str, bytes] = {}
        processes = []
        try:
            for name, settings in (("refusing", refusing), ("running", config), ("no_kafka", no_kafka)):
                processes.append((name, *start(tmp_path, name, settings)))
            running, log = processes[1][1:]
            for name, it in servers.items():
                wait_for(f"a request to {name}\n{log.read_text()[-3000:]}", lambda it=it: it.requests)  # type: ignore[misc]
            wait_for("a failed handshake", lambda: tls.handshakes > 1)
            wait_for("readiness", lambda: get(port, "/readyz").startswith(b"ready"))
            echo(servers["database"], 400)
            known = len(servers["database"].requests)
            wait_for("a refusing database", lambda: len(servers["database"].requests) > known + 1)
            for sink in ("slack", "hook", "am", "tls"):
                seen = re.compile(rb'deliveries_total\{result="(retried|dead)",sink="%s"\} [1-9]' % sink.encode())
                wait_for(f"failures of {sink}", lambda seen=seen: seen.search(get(port, "/metrics")))  # type: ignore[misc]
            for path in ("/metrics", "/readyz", "/healthz", "/x"):
                outputs[path] = get(port, path)
            outputs["ps"] = Path(f"/proc/{running.pid}/cmdline").read_bytes()
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0, log.read_text()[-3000:]
            assert processes[0][1].wait(60) == 1
            assert processes[2][1].wait(60) == 2
        finally:
            for _, process, _ in processes:
                if process.poll() is None:
                    process.kill()
                process.wait(10)
        for name, _, log in processes:
            outputs[f"log of {name}"] = log.read_bytes()
        assert b"clickhouse" in outputs["log of refusing"]
        assert b"broker" in outputs["log of no_kafka"]
        checked = subprocess.run(
            [sys.executable, "-m", "flows", "check", "--config", str(tmp_path / "running.yaml")],
            cwd=ROOT, capture_output=True, timeout=60, env={**os.environ, **MARKS},
        )  # fmt: skip
        assert checked.returncode == 0
        outputs["check"] = checked.stdout + checked.stderr
        outputs["topics"] = consumed(broker.address)
        for file in (tmp_path / "state").rglob("*"):
            if file.is_file():
                outputs[str(file.relative_to(tmp_path))] = file.read_bytes()
        assert any("outbox" in name for name in outputs)
        assert any("recovery" in name for name in outputs)
        for name, it in servers.items():  # what is stored there, and nobody else's secret
            outputs[f"sent to {name}"] = b"\n".join(r.path.encode() + r.body for r in it.requests)
        assert outputs["sent to database"]
        allowed = {"sent to pd": "PAGERDUTY", "sent to hook": "HOOK_PATH", "sent to slack": "SLACK"}
        leaks = {name: leaked for name, text in outputs.items() if (leaked := found(text, allowed.get(name, "")))}
        assert not leaks
        assert tls.received == b""
