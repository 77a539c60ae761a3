"""Real Apache Kafka: its own jars from Maven Central; every node is broker and controller (KRaft)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers.ending import Ending

VERSION = "4.1.0"
POM = Path(__file__).with_name("pom.xml")
PROTOCOLS = "CONTROLLER:PLAINTEXT," + ",".join(f"{p}:{p}" for p in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"))
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


class KafkaBroker(Ending):
    """One broker on loopback ports, with its data under `path`; it can be killed and started again.

    Parameters
    ----------
    path
        Directory of the data, the settings and the log; kept between starts.
    port, controller_port
        Listeners; the same ones are used after a restart.
    partitions
        Partitions of a topic that is made on first use.
    node
        Its number in the cluster.
    voters
        Controller ports by node; by default this node alone.
    cluster_id
        Identity of the cluster, when there are several nodes.
    listener
        Protocol and port of a second listener, such as `("SASL_SSL", 9093)`.
    settings
        Further server properties.
    scram
        User and password that may log in by SCRAM.
    """

    def __init__(
        self,
        path: Path,
        port: int,
        controller_port: int,
        partitions: int = 4,
        *,
        node: int = 1,
        voters: Mapping[int, int] | None = None,
        cluster_id: str | None = None,
        listener: tuple[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
        scram: tuple[str, str] | None = None,
    ) -> None:
        self.path = path
        self.port = port
        self.node = node
        self._controller_port = controller_port
        self._partitions = partitions
        self._voters = voters or {node: controller_port}
        self._cluster_id = cluster_id or _cluster_id()
        self._listener = listener
        self._further = settings or {}
        self._scram = scram
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Format the storage if it is new, start the broker and wait until it answers a client."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Format the storage if it is new, and start the broker."""
        libraries = jars()
        settings = self.path / "server.properties"
        if not settings.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            settings.write_text(self._settings())
            users = [f"SCRAM-SHA-256=[name={self._scram[0]},password={self._scram[1]}]"] if self._scram else []
            self._java(
                libraries, "kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(settings),
                *(x for user in users for x in ("--add-scram", user)),
            ).wait(60)  # fmt: skip
        self._process = self._java(libraries, "kafka.Kafka", str(settings))

    def wait_until_ready(self) -> None:
        """Wait until the broker answers a client."""
        client = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                if self.node in client.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                pass
            time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"Kafka broker did not start: {(self.path / 'broker.log').read_text()[-1500:]}")

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

    def _settings(self) -> str:
        listeners = [f"PLAINTEXT://127.0.0.1:{self.port}"]
        if self._listener is not None:
            listeners.append(f"{self._listener[0]}://127.0.0.1:{self._listener[1]}")
        nodes = len(self._voters)
        replicas = min(nodes, 3)
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in sorted(self._voters.items()))
        return "\n".join(
            [
                "process.roles=broker,controller",
                f"node.id={self.node}",
                f"controller.quorum.voters={voters}",
                f"listeners={','.join(listeners)},CONTROLLER://127.0.0.1:{self._controller_port}",
                f"advertised.listeners={','.join(listeners)}",
                "controller.listener.names=CONTROLLER",
                f"listener.security.protocol.map={PROTOCOLS}",
                f"log.dirs={self.path / 'data'}",
                f"num.partitions={self._partitions}",
                f"default.replication.factor={replicas}",
                "auto.create.topics.enable=true",
                f"offsets.topic.replication.factor={replicas}",
                "offsets.topic.num.partitions=4",
                f"transaction.state.log.replication.factor={replicas}",
                "transaction.state.log.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                "broker.session.timeout.ms=3000",  # a killed broker is missed, and may come back, sooner
                "broker.heartbeat.interval.ms=500",
                "log.segment.bytes=16777216",
                "log.retention.ms=-1",  # tests send old time stamps; topics that are to expire say so themselves
                *(f"{key}={value}" for key, value in self._further.items()),
                "",
            ]
        )


class KafkaCluster:
    """Several brokers that replicate each other's partitions; any one of three may die.

    Parameters
    ----------
    path
        Directory of everything.
    ports
        Two free ports per broker.
    """

    def __init__(self, path: Path, ports: list[int]) -> None:
        controllers = dict(enumerate(ports[::2], start=1))
        identity = _cluster_id()
        self.brokers = {
            node: KafkaBroker(
                path / str(node), port, controllers[node], node=node, voters=controllers, cluster_id=identity
            )
            for node, port in enumerate(ports[1::2], start=1)
        }

    @property
    def bootstrap_servers(self) -> str:
        """Addresses for clients."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers.values())

    def start(self) -> None:
        """Start all brokers and wait until each answers."""
        for broker in self.brokers.values():
            broker.launch()
        for broker in self.brokers.values():
            broker.wait_until_ready()

    def stop(self) -> None:
        """End all brokers; nothing of theirs is needed any more."""
        for broker in self.brokers.values():
            broker.kill()


def _cluster_id() -> str:
    import base64

    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
