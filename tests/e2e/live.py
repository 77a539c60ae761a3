"""`tidegauge run` as a process of its own, and what it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, TopicPartition

from sinks.clickhouse.client import connect
from tests.conftest import ROOT
from tests.e2e.company import END_AFTER_S, PARTITIONS, Company
from tests.servers.cache import free_port

PATIENCE_S = 90.0

TABLES: dict[str, str] = {
    "requests": "at, event_id, topic, partition, offset, position",
    "request_windows": "grouping, window_start, window_end, series, version",
    "gpu_samples": "at, topic, partition, offset, position",
    "gpu_windows": "ALL",
    "scores": "detector, window_start, window_end, series",
    "incidents": "incident_id, revision",
    "dead_letters": "topic, partition, offset, position",
}
"""Every table that holds results, with an order."""


def wait_for(what: str, condition: Callable[[], Any], *, timeout_s: float = PATIENCE_S) -> Any:
    """Wait until a condition holds; returns its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.05)
    return value


class Live:
    """One installation: a configuration, a state directory, a database of its own, and the process.

    Parameters
    ----------
    folder
        For configuration, state and logs.
    company
        Whose topics are read.
    kafka, clickhouse
        Bootstrap servers, and URL of the server (its database is replaced by one of this installation's own).
    webhook
        URL that incidents are posted to; None for none.
    receivers
        Further destinations, as in the settings.
    ask
        URL of the same server for questions about what it left, where the process goes through a proxy.
    settings
        Sections; their entries win over those made here.
    """

    def __init__(
        self,
        folder: Path,
        company: Company,
        kafka: str,
        clickhouse: str,
        webhook: str | None = None,
        /,
        *,
        receivers: Sequence[dict[str, Any]] = (),
        ask: str | None = None,
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.company, self.kafka = folder, company, kafka
        self.incidents_topic = f"{company.incidents_topic}-{folder.name}"
        self.dead_topic = f"{company.dead_topic}-{folder.name}"
        self.database = database = f"e2e_{uuid.uuid4().hex[:10]}"
        self.url = _with_database(ask or clickhouse, database)
        self.ports = [free_port()]
        """Of the running processes' own HTTP side."""
        self.config = folder / "tidegauge.yaml"
        own: dict[str, Any] = {
            "state_dir": str(folder / "state"),
            "epoch_s": 0.25,
            "kafka": {
                "bootstrap_servers": kafka,
                "requests_topic": company.requests_topic,
                "gpus_topic": company.gpus_topic,
                "incidents_topic": self.incidents_topic,
                "dead_letters_topic": self.dead_topic,
                "block_messages": 500,
                "topic_check_s": 1.0,
            },
            # No idle timeout: it alone may let the clock change an answer.
            "windows": {"shards": 4, "idle_timeout_s": 3600.0},
            "incidents": {"cold_start_s": 600.0},
            "clickhouse": {"url": _with_database(clickhouse, database)},
            "destinations": [
                *([{"name": "hook", "type": "webhook", "url": webhook, "rate_per_s": 100.0}] if webhook else []),
                *receivers,
            ],
            "metrics": {"port": self.ports[0]},
        }
        for section, given in settings.items():
            own[section] = {**own.get(section, {}), **given} if isinstance(given, dict) else given
        self._settings = own
        self.config.write_text(yaml.safe_dump(own))
        self.processes: list[subprocess.Popen[bytes]] = []

    # ------------------------------------------------------------------ the process
    def start(self, *arguments: str, config: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a process of this installation."""
        with (self.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows", "run", "--config", str(config or self.config), *arguments],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self.processes.append(process)
        return process

    def start_cluster(self, processes: int, workers: int) -> None:
        """Start several processes that share the work; each has a port of its own for metrics."""
        self.ports = [free_port() for _ in range(processes)]
        addresses = [a for _ in range(processes) for a in ("--address", f"127.0.0.1:{free_port()}")]
        for number, port in enumerate(self.ports):
            config = self.folder / f"tidegauge-{number}.yaml"
            config.write_text(yaml.safe_dump({**self._settings, "metrics": {"port": port}}))
            self.start("--process", str(number), "--workers", str(workers), *addresses, config=config)

    def kill(self) -> None:
        """`kill -9` whatever runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)
        self.processes = []

    def stop(self, *, within_s: float = 10.0) -> float:
        """SIGTERM to every process; returns the seconds that it took. Each must end in time and with code 0."""
        begun = time.monotonic()
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                code = process.wait(within_s + 5)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"SIGTERM does not end the process\n{self.log()}") from None
            assert code == 0, f"exit code {code}\n{self.log()}"
        took_s = time.monotonic() - begun
        assert took_s <= within_s, f"{took_s:.1f} s to stop\n{self.log()}"
        self.processes = []
        return took_s

    def log(self) -> str:
        """End of the log."""
        return (self.folder / "log.txt").read_text(errors="replace")[-6_000:]

    def get(self, path: str, *, process: int = 0) -> tuple[int, str]:
        """Status and text of a process's own HTTP side; status 0 if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[process]}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as problem:
            with problem:
                return problem.code, problem.read().decode()
        except OSError:
            return 0, ""

    def metrics(self) -> dict[str, float]:
        """Every metric: the sum of its samples over all processes."""
        out: dict[str, float] = {}
        for process in range(len(self.ports)):
            for line in self.get("/metrics", process=process)[1].splitlines():
                if line and not line.startswith("#"):
                    name, value = line.partition("{")[0].partition(" ")[0], line.rsplit(" ", 1)[1]
                    out[name] = out.get(name, 0.0) + float(value)
        return out

    def metric(self, name: str) -> float:
        """Sum of all samples of a metric; 0 if it has none."""
        return self.metrics().get(name, 0.0)

    def is_ready(self) -> bool:
        """Whether `/readyz` says so."""
        self.check_alive()
        return self.get("/readyz")[0] == 200

    def check_alive(self) -> None:
        """Fail, with the log, if a process has ended by itself."""
        for process in self.processes:
            assert process.poll() is None, f"the process ended with code {process.returncode}\n{self.log()}"

    # ------------------------------------------------------------------ what it left
    def query(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query; none if the database does not exist yet."""
        client = connect(self.url)
        ours, client.database = client.database, "default"
        try:
            (there,) = client.query(
                "SELECT count() FROM system.tables WHERE database = {db:String}", parameters={"db": ours}
            ).result_rows[0]
            if there < len(TABLES):
                return []
            client.database = ours
            return [tuple(row) for row in client.query(sql, parameters=parameters).result_rows]
        finally:
            client.close()

    def has_closed_everything(self) -> bool:
        """Whether the windows of the first closing events are in the database, on both streams."""
        self.check_alive()
        at = self.company.end_s + END_AFTER_S
        requests = self.query(
            "SELECT sum(requests) FROM request_windows FINAL WHERE grouping = ''"
            " AND toUnixTimestamp(window_start) <= {at:UInt32} AND toUnixTimestamp(window_end) > {at:UInt32}",
            at=at,
        )
        gpus = self.query(
            "SELECT count() FROM gpu_windows FINAL"
            " WHERE toUnixTimestamp(window_start) <= {at:UInt32} AND toUnixTimestamp(window_end) > {at:UInt32}",
            at=at,
        )
        return bool(requests and requests[0][0] == PARTITIONS and gpus and gpus[0][0])

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every table after FINAL, row by row, without the time of insertion.

        What Tidegauge says about itself follows the clock and is left out.
        """
        out = {}
        for table, order in TABLES.items():
            where = "WHERE kind != 'pipeline_health'" if table == "incidents" else ""
            out[table] = self.query(f"SELECT * EXCEPT (inserted_at) FROM {table} FINAL {where} ORDER BY {order}")
        return out

    def drop(self) -> None:
        """Remove the database."""
        client = connect(self.url)
        client.command(f"DROP DATABASE IF EXISTS {client.database}", use_database=False)
        client.close()


def _with_database(url: str, database: str) -> str:
    return url.rsplit("/", 1)[0] + f"/{database}"


def read_topic(bootstrap_servers: str, topic: str) -> list[tuple[bytes, Any]]:
    """Every message of a topic: key and JSON value."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "e2e", "enable.partition.eof": True})
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        out, ends = [], 0
        deadline = time.monotonic() + PATIENCE_S
        while ends < len(partitions) and time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error() is not None:
                ends += 1
            else:
                out.append((message.key(), json.loads(message.value())))
        return out
    finally:
        consumer.close()
