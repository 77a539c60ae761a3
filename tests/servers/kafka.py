"""A real Apache Kafka broker: its own jars from Maven Central, one node that is broker and controller (KRaft)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

VERSION = "4.1.0"
POM = Path(__file__).with_name("pom.xml")
START_TIMEOUT_S = 60.0
DOWNLOAD_TIMEOUT_S = 600.0


def jars() -> Path:
    """Directory of the broker's jars, downloaded once; skips the test where they are not to be had."""
    from tests.servers.cache import locked, missing

    with locked("kafka") as cache:
        target = cache / f"kafka-{VERSION}"
        if shutil.which("java") is None:
            missing("Kafka broker: java (17 or newer) is not installed")
        if target.exists():
            return target
        if shutil.which("mvn") is None:
            missing("Kafka broker: mvn is not installed")
        partial = cache / f"kafka-{VERSION}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            subprocess.run(
                ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"],
                check=True,
                capture_output=True,
                timeout=DOWNLOAD_TIMEOUT_S,
            )
        except (subprocess.SubprocessError, OSError) as error:
            missing(f"Kafka broker: mvn dependency:copy-dependencies failed ({type(error).__name__})")
        partial.rename(target)
        return target


class KafkaBroker:
    """One broker on loopback ports, with its data under `path`; it can be killed and started again.

    Parameters
    ----------
    path
        Directory of the data, the settings and the log; kept between starts.
    port, controller_port
        Listeners; the same ones are used after a restart.
    partitions
        Partitions of a topic that is made on first use.
    """

    def __init__(self, path: Path, port: int, controller_port: int, partitions: int = 4) -> None:
        self.path = path
        self.port = port
        self._controller_port = controller_port
        self._partitions = partitions
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Format the storage if it is new, start the broker and wait until it answers a client."""
        libraries = jars()
        settings = self.path / "server.properties"
        if not settings.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            settings.write_text(self._settings())
            self._java(libraries, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(settings)).wait(
                60
            )
        self._process = self._java(libraries, "kafka.Kafka", str(settings))
        client = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if client.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"Kafka broker did not start: {(self.path / 'broker.log').read_text()[-1500:]}")

    def stop(self) -> None:
        """Ask the broker to end, and end it if it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker at once, as a crash would."""
        self._end(signal.SIGKILL)

    def _java(self, libraries: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.path / "broker.log", "ab") as log:
            return subprocess.Popen(
                ["java", "-Xms128m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", f"{libraries}/*", *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.path,
                env={**os.environ, "KAFKA_OPTS": ""},
            )

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)

    def _settings(self) -> str:
        return "\n".join(
            [
                "process.roles=broker,controller",
                "node.id=1",
                f"controller.quorum.voters=1@127.0.0.1:{self._controller_port}",
                f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
                f"advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}",
                "controller.listener.names=CONTROLLER",
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                f"log.dirs={self.path / 'data'}",
                f"num.partitions={self._partitions}",
                "auto.create.topics.enable=true",
                "offsets.topic.replication.factor=1",
                "offsets.topic.num.partitions=4",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                "log.segment.bytes=16777216",
                "",
            ]
        )


def _cluster_id() -> str:
    import base64

    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
