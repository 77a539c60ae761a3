"""Which partitions a topic has, and whether that is still so while they are read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import BadSettings

GROUP = "tidegauge"
"""Consumer group of clients whose options name none; no position is ever committed to it."""

QUIET = {"log_level": 0}
"""librdkafka's own report of every refused connection would bury our one line."""

ANSWER_S = 15.0
"""How long a start waits for the brokers."""

_FOR_GOOD = {
    KafkaError._AUTHENTICATION: "Check sasl.username and sasl.mechanism in kafka.options, and the password.",
    KafkaError._SSL: "Check ssl.ca.location in kafka.options, and the broker's certificate.",
}
"""Refusals that do not mend themselves, and what to look at."""


class TopicMissing(BadSettings):
    """The brokers know no such topic, or do not show it to us."""


_CLUSTER = "one process goes on with them by itself, a cluster after a restart of all its processes"


@dataclass(frozen=True)
class Topic:
    """A topic as the brokers describe it.

    Parameters
    ----------
    name
        Its name.
    partitions
        Their numbers.
    identity
        The broker's own id of it, another one after it was deleted and made again; empty where brokers have none.
    """

    name: str
    partitions: tuple[int, ...]
    identity: str = ""


class Brokers:
    """Asks brokers about topics. Not for several threads at once.

    Parameters
    ----------
    options
        librdkafka options, `bootstrap.servers` among them.

    Raises
    ------
    BadSettings
        librdkafka refuses the options.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.address = options.get("bootstrap.servers")
        self._refused: KafkaError | None = None
        try:
            # A consumer, since looking at a topic with any other client may create it.
            self._consumer = Consumer({"group.id": GROUP, **options, **QUIET, "error_cb": self._on_error})
            self._admin = AdminClient({**options, **QUIET})
        except KafkaException as problem:
            why = problem.args[0].str()
            raise BadSettings(f"kafka: the client cannot be set up ({why}). Check kafka.options.") from None

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in _FOR_GOOD:
            self._refused = error

    def topic(self, name: str, *, timeout_s: float = ANSWER_S) -> Topic:
        """Describe a topic; raises what `partitions` does."""
        return Topic(name, self.partitions(name, timeout_s=timeout_s), self._identity(name, timeout_s))

    def partitions(self, name: str, *, timeout_s: float = ANSWER_S) -> tuple[int, ...]:
        """Numbers of a topic's partitions; one that was made a moment ago is waited for.

        Raises
        ------
        BadSettings
            No broker answers, they refuse us, or there is no such topic.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = self._consumer.list_topics(name, timeout=min(1.0, timeout_s)).topics[name]
            except KafkaException as problem:
                self._consumer.poll(0)  # calls `_on_error`
                if self._refused is not None:
                    what = self._refused.str().partition(": ")[2] or self._refused.str()
                    raise BadSettings(
                        f"kafka: {self.address} refuses us ({what}). {_FOR_GOOD[self._refused.code()]}"
                    ) from None
                if time.monotonic() > deadline:
                    raise BadSettings(
                        f"kafka: no broker answers at {self.address} ({problem.args[0].str()}). "
                        "Check kafka.bootstrap_servers."
                    ) from None
                continue
            if found.partitions and found.error is None:
                return tuple(sorted(found.partitions))
            made_just_now = found.error is None or found.error.code() == KafkaError.LEADER_NOT_AVAILABLE
            if not made_just_now or time.monotonic() > deadline:
                why = found.error.str() if found.error is not None else "it has no partitions"
                raise TopicMissing(
                    f"kafka: topic {name} cannot be read ({why}). Create it, or change the topic's setting."
                )
            time.sleep(0.1)

    def close(self) -> None:
        """Let go of the brokers."""
        self._consumer.close()

    def _identity(self, name: str, timeout_s: float) -> str:
        try:
            asked = self._admin.describe_topics(TopicCollection([name]), request_timeout=timeout_s)
            described = asked[name].result(timeout_s + 1.0)
        except (KafkaException, FutureTimeoutError):  # librdkafka's own broker has none
            return ""
        return str(described.topic_id)

    def ends(self, topic: Topic) -> dict[int, int]:
        """Offset after the newest message, by partition; those that do not answer are left out."""
        asked = {TopicPartition(topic.name, p): OffsetSpec.latest() for p in topic.partitions}
        out = {}
        for partition, answer in self._admin.list_offsets(asked, request_timeout=2.0).items():
            try:
                out[partition.partition] = answer.result(3.0).offset
            except (KafkaException, FutureTimeoutError):
                continue
        return out


def list_partitions(options: Mapping[str, Any], topic: str, *, timeout_s: float = ANSWER_S) -> list[int]:
    """Numbers of a topic's partitions.

    Raises
    ------
    BadSettings
        The broker cannot be reached, or has no such topic.
    """
    brokers = Brokers(options)
    try:
        return list(brokers.partitions(topic, timeout_s=timeout_s))
    finally:
        brokers.close()


class TopicWatch:
    """Looks, in a thread of its own, whether topics are still what they were when reading began. A context manager.

    Parameters
    ----------
    brokers
        Who is asked; used by this watch alone from now on.
    topics
        What is read.
    every_s
        How often to look.
    on_ends
        Called with each topic and its partitions' ends.
    """

    def __init__(
        self,
        brokers: Brokers,
        topics: Sequence[Topic],
        *,
        every_s: float,
        on_ends: Callable[[Topic, Mapping[int, int]], None] = lambda topic, ends: None,
    ) -> None:
        self.brokers = brokers
        self.read = {topic.name: topic for topic in topics}
        self.found = dict(self.read)
        """As the brokers last described them."""
        self.gone: frozenset[str] = frozenset()
        """Topics that do not exist now, or were made anew: what comes from there under their old positions is not
        theirs."""
        self._since = datetime.now(UTC)
        self.trouble = ""
        """Why the last look failed; empty if it did not."""
        self.every_s = every_s
        self.on_ends = on_ends
        self.changed = threading.Event()
        """Set once what is read is not what there is."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-topics", daemon=True)

    def __enter__(self) -> TopicWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(timeout=2)  # a look at brokers that are away may take longer; it changes nothing any more

    def unread(self) -> dict[str, int]:
        """By topic: partitions that exist and are not read."""
        return {
            name: len(set(self.found[name].partitions) - set(topic.partitions)) for name, topic in self.read.items()
        }

    def is_gone(self, name: str) -> bool:
        """Whether a topic is not the one that positions belong to."""
        return name in self.gone

    def missing(self) -> str:
        """What keeps the process from reading everything there is; empty for nothing."""
        if self.trouble:
            return self.trouble
        for name, n in self.unread().items():
            if n:
                return f"kafka: {n} new partitions of {name} are not read yet; {_CLUSTER}"
            if self.found[name].identity != self.read[name].identity:
                return f"kafka: topic {name} was made anew and is not read yet; {_CLUSTER}"
        return ""

    def look(self) -> None:
        """Look once."""
        for name in self.read:
            try:
                found = self.brokers.topic(name, timeout_s=self.every_s)
            except BadSettings as problem:
                if not self.trouble:
                    self._since = datetime.now(UTC)
                self.trouble = f"{problem} (since {self._since:%H:%M:%S} UTC)"
                if isinstance(problem, TopicMissing):
                    self.gone |= {name}
                return
            before = self.found[name]
            if not (found.identity and before.identity):  # not told this time, or for the first time
                found = replace(found, identity=before.identity)
            self.found[name] = found
            made_anew = found.identity != self.read[name].identity
            self.gone = self.gone | {name} if made_anew else self.gone - {name}
            self.on_ends(found, self.brokers.ends(found))
            if found != before:
                self.changed.set()
                structlog.get_logger().warning(
                    "kafka topic changed",
                    topic=name,
                    partitions=len(found.partitions),
                    before=len(before.partitions),
                    made_anew=made_anew,
                )
        self.trouble = ""

    def _run(self) -> None:
        while not self._closing.wait(self.every_s):
            try:
                self.look()
            except Exception as problem:  # the watch must outlive whatever a client raises
                self.trouble = f"kafka: topics cannot be looked up ({type(problem).__name__})"
                structlog.get_logger().warning("kafka", problem=self.trouble)
