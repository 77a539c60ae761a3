"""Test servers as containers of the images that docker-compose.yml pins, on loopback, removed afterwards."""

from __future__ import annotations

import functools
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.servers.cache import free_port

COMPOSE = Path(__file__).resolve().parents[2] / "docker-compose.yml"
ALERTMANAGER = "prom/alertmanager:v0.28.1"
"""Not part of the compose file: it is one of many receivers."""
LABEL = "tidegauge.test"
"""Containers of a test run that was killed: `docker ps --filter label=tidegauge.test`."""

INFO_TIMEOUT_S = 5.0
RUN_TIMEOUT_S = 600.0
"""Includes the download of the image."""
START_TIMEOUT_S = 90.0
REMOVE_TIMEOUT_S = 60.0

INSIDE = {"kafka": 9092, "clickhouse": 8123, "alertmanager": 9093}
"""Ports inside the containers."""


class DockerFailed(Exception):
    """A container could not be started."""


@dataclass(frozen=True)
class Container:
    """One running server."""

    name: str
    address: str

    def remove(self) -> None:
        """End it and delete its data."""
        _docker("rm", "--force", "--volumes", self.name, timeout_s=REMOVE_TIMEOUT_S)


@functools.cache
def engine_answers() -> bool:
    """Whether a Docker engine is there, and answers within some seconds."""
    try:
        _docker("info", "--format", "{{.ServerVersion}}", timeout_s=INFO_TIMEOUT_S)
    except DockerFailed:
        return False
    return True


def image(server: str) -> str:
    """The image of a server."""
    if server == "alertmanager":
        return ALERTMANAGER
    return str(yaml.safe_load(COMPOSE.read_text())["services"][server]["image"])


def start(server: str) -> Container:
    """Start a container and wait until the server in it answers.

    Raises
    ------
    DockerFailed
        Docker refused, the image cannot be had, or the server does not answer in time.
    """
    port = free_port()
    container = Container(f"{LABEL.replace('.', '-')}-{server}-{uuid.uuid4().hex[:8]}", address(server, port))
    try:
        _docker(*run_arguments(server, port, container.name), timeout_s=RUN_TIMEOUT_S)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(server, port):
            if time.monotonic() > deadline:
                raise DockerFailed(f"{image(server)} does not answer within {START_TIMEOUT_S:.0f} s")
            time.sleep(0.2)
    except DockerFailed:
        with suppress(DockerFailed):  # it may never have come to be
            container.remove()
        raise
    return container


def run_arguments(server: str, port: int, name: str) -> list[str]:
    """What `docker` is called with to start a server."""
    published = f"127.0.0.1:{port}:{INSIDE[server]}"
    options = ["--detach", "--rm", "--name", name, "--label", LABEL, "--publish", published]
    variables = [a for k, v in _environment(server, port).items() for a in ("--env", f"{k}={v}")]
    return ["run", *options, *variables, image(server)]


def address(server: str, port: int) -> str:
    """As the environment would give it."""
    return {
        "kafka": f"127.0.0.1:{port}",
        "clickhouse": f"http://127.0.0.1:{port}/tidegauge",
        "alertmanager": f"http://127.0.0.1:{port}",
    }[server]


def _environment(server: str, port: int) -> dict[str, str]:
    if server == "kafka":
        # Any variable of ours replaces all of the image's own settings, so these are complete. The broker itself needs
        # a listener whose address is right inside the container.
        return {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": "INTERNAL://0.0.0.0:19092,HOST://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"INTERNAL://localhost:19092,HOST://127.0.0.1:{port}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "INTERNAL:PLAINTEXT,HOST:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_NUM_PARTITIONS": "4",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        }
    # Without it the image closes the network to its user `default`; the port is on loopback.
    return {"CLICKHOUSE_SKIP_USER_SETUP": "1"} if server == "clickhouse" else {}


def _answers(server: str, port: int) -> bool:
    if server == "kafka":
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            client = AdminClient({"bootstrap.servers": address(server, port), "log_level": 0})
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False
    path = {"clickhouse": "/ping", "alertmanager": "/-/ready"}[server]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as answer:
            return answer.read().startswith((b"Ok", b"OK"))
    except (urllib.error.URLError, OSError):
        return False


def _docker(*arguments: str, timeout_s: float) -> None:
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise DockerFailed(f"docker {arguments[0]} does not end within {timeout_s:.0f} s") from None
    except OSError as error:
        raise DockerFailed(f"docker cannot be run ({error.strerror})") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise DockerFailed(f"docker {arguments[0]} failed: {said[:300]}")
