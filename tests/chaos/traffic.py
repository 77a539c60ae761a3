"""Live traffic: requests and GPU samples that happen now, and a GPU that breaks every second."""

from __future__ import annotations

import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from flows.simulate import simulate
from tests.e2e.company import END_AFTER_S, PARTITIONS

NODES = 60
"""GPUs, each on a node of its own: one breaks every second, so each does once a minute."""
XIDS = (79, 48)
"""Two hardware faults in turn: only a change of the code is a new fault."""
TICK_S = 0.02
CLOSING_S = (100, 200, 300, 400)
"""Some rows before that: an incident ends after some quiet ones."""

_AT_AND_ID = re.compile(rb'"at":[^,]*,"event_id":"[^"]*",')

_UNHEARD_OF = (
    b'{"at":%d,"event_id":"c%d","team":"team-%d","api_key_id":"key-%d","prompt_version":"v%d","provider":"openai",'
    b'"model":"gpt-5","status":200,"input_tokens":1200,"output_tokens":90,"latency_ms":900}'
)


@dataclass
class Fault:
    """One GPU that broke."""

    node: str
    at_s: float


@dataclass
class Topics:
    """Topics of one's own."""

    suffix: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __post_init__(self) -> None:
        self.requests_topic, self.gpus_topic = f"requests-{self.suffix}", f"gpus-{self.suffix}"
        self.incidents_topic, self.dead_topic = f"incidents-{self.suffix}", f"dead-{self.suffix}"
        self.end_s = 0
        """Second after the last event."""

    def create(self, bootstrap_servers: str, *, replication: int = 1) -> None:
        """Make the topics."""
        admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        names = (self.requests_topic, self.gpus_topic, self.incidents_topic, self.dead_topic)
        wanted = [
            NewTopic(n, num_partitions=PARTITIONS, replication_factor=replication, config={"retention.ms": "-1"})
            for n in names
        ]
        for future in admin.create_topics(wanted).values():
            future.result(20)


def templates(seed: int, n: int = 4_000) -> list[bytes]:
    """Requests of the simulated company without time and identity: what follows `{"at":…,"event_id":…,`."""
    minute = next(iter(simulate(minutes=1, seed=seed, rate=n / 60)))
    bodies = [b"{" + _AT_AND_ID.sub(b"", body)[1:] for body in minute.requests]
    # Some producers of the company write events that are no good, or in an order of their own.
    return [body for body in bodies if b'"at":' not in body and b'"event_id":' not in body]


class Traffic(threading.Thread):
    """Produces until told to stop. Event times are the clock's.

    Parameters
    ----------
    bootstrap_servers
        Of Kafka.
    topics
        Where to.
    rate_per_s
        Requests per second; may be changed while it runs.
    seed
        Varies the requests.
    """

    def __init__(self, bootstrap_servers: str, topics: Topics, *, rate_per_s: float, seed: int = 1) -> None:
        super().__init__(name="traffic", daemon=True)
        self.topics, self.rate_per_s = topics, rate_per_s
        self.breaking = True
        """Whether GPUs break."""
        self.exploding = False
        """Whether every request names a team, a key and a prompt version that nobody has seen before."""
        self.requests = 0
        self.samples = 0
        self.refused = 0
        """Events that Kafka did not take in the end."""
        self.faults: list[Fault] = []
        self.problem: BaseException | None = None
        self._halt = threading.Event()
        self._rests = [body[1:] for body in templates(seed)]
        self._xid = dict.fromkeys(range(NODES), 0)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "log_level": 0,
                "message.timeout.ms": 0,  # what happened, happened: it waits for the broker as long as it takes
                "queue.buffering.max.messages": 5_000_000,
                "queue.buffering.max.kbytes": 2_000_000,
                "on_delivery": self._told,
            }
        )

    def run(self) -> None:
        """Produce, tick by tick."""
        try:
            owed, last, second = 0.0, time.time(), 0
            while not self._halt.wait(TICK_S):
                now = time.time()
                owed += (now - last) * self.rate_per_s
                last = now
                n, owed = int(owed), owed % 1.0
                self._requests(now, n)
                if int(now) != second:
                    second = int(now)
                    self._samples(now, second)
                self._producer.poll(0)
        except BaseException as problem:
            self.problem = problem

    def halt(self) -> None:
        """Send nothing more."""
        self._halt.set()
        self.join(30)

    def stop(self) -> None:
        """End the traffic, tell the flow that time has passed, and wait until Kafka has everything."""
        self.halt()
        if self.problem is not None:
            raise self.problem
        self.topics.end_s = int(time.time()) + 1
        for after in (*CLOSING_S, END_AFTER_S, 2 * END_AFTER_S):
            self._close(self.topics.end_s + after)
        if self._producer.flush(120):
            raise RuntimeError("the broker does not take the messages")

    def _requests(self, now: float, n: int) -> None:
        produce, topic, at_ms = self._producer.produce, self.topics.requests_topic, int(now * 1_000)
        known = len(self._rests)
        for i in range(self.requests, self.requests + n):
            if self.exploding:
                body = _UNHEARD_OF % (at_ms, i, i, i, i)
            else:
                body = b'{"at":%d,"event_id":"c%d",%b' % (at_ms, i, self._rests[i % known])
            produce(topic, body, partition=i % PARTITIONS, timestamp=at_ms)
        self.requests += n

    def _samples(self, now: float, second: int) -> None:
        at_ms = int(now * 1_000)
        if self.breaking and self.samples:
            node = second % NODES
            self._xid[node] = XIDS[XIDS.index(self._xid[node]) ^ 1] if self._xid[node] in XIDS else XIDS[0]
            self.faults.append(Fault(name(node), at_ms / 1_000))
        for node, xid in self._xid.items():
            body = (
                b'{"at":%d,"cluster":"chaos","node":"%b","gpu_uuid":"GPU-%d","gpu_index":0,"gpu_model":"H100",'
                b'"util":0.9,"xid":%d}' % (at_ms, name(node).encode(), node, xid)
            )
            self._sample(body, node % PARTITIONS, at_ms)

    def _sample(self, body: bytes, partition: int, at_ms: int) -> None:
        self._producer.produce(self.topics.gpus_topic, body, partition=partition, timestamp=at_ms)
        self.samples += 1

    def _close(self, at_s: int) -> None:
        stamp = datetime.fromtimestamp(at_s, UTC).isoformat().encode()
        for p in range(PARTITIONS):
            body = b'{"at":"%b","event_id":"end-%d-%d","provider":"openai","model":"gpt-5","status":200}'
            self._producer.produce(
                self.topics.requests_topic, body % (stamp, at_s, p), partition=p, timestamp=at_s * 1_000
            )
            self.requests += 1
            self._sample(
                b'{"at":"%b","node":"closing","gpu_uuid":"GPU-closing-%d","util":0.5}' % (stamp, p), p, at_s * 1_000
            )

    def _told(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.refused += 1


def name(node: int) -> str:
    """Name of a node."""
    return f"node-{node:02d}"
