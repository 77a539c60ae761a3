"""Kafka: every incident revision as one JSON message, keyed by incident."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import BadSettings, DeliveryFailed
from schemas.incident import Incident
from sinks.secrets import HIDDEN
from sinks.traits import Traits

TOPIC = "ai.incidents"
BATCH = 500
TIMEOUT_S = 10.0
PERMANENT = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
    }
)
"""Errors of the message itself; all others (topic, rights, brokers) can be mended while the message waits."""

# librdkafka would print its connection troubles to stderr; they reach the operator through errors and `status()`.
_silent = logging.getLogger("tidegauge.sinks.kafka")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class KafkaTopic:
    """Writes incidents to a topic, and returns when the brokers have them on all in-sync replicas.

    The producer is idempotent, so its own retries neither duplicate nor reorder. After a crash the same revision may
    come twice: readers keep the last message per (`incident_id`, `revision`).

    Parameters
    ----------
    name
        Name of the destination.
    topic
        Topic; the incident's id is the key, so the revisions of one incident stay in order.
    options
        librdkafka options; `bootstrap.servers` is needed. `acks` and `enable.idempotence` are ours.
    timeout_s
        Seconds after which an unacknowledged message counts as failed.

    Raises
    ------
    BadSettings
        librdkafka refuses the options.
    """

    def __init__(
        self,
        name: str,
        topic: str = TOPIC,
        *,
        options: Mapping[str, str | int | bool],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.name = name
        self.traits = Traits(recording=True, batch=BATCH)
        self._topic = topic
        self._timeout_s = timeout_s
        self._trouble = ""
        self._hidden = [
            v
            for k, v in options.items()
            if isinstance(v, str) and v and ("password" in k or "secret" in k or ".key" in k)
        ]
        if not options.get("bootstrap.servers"):
            raise BadSettings(f"kafka `{name}`: needs `bootstrap.servers`, see `kafka.bootstrap_servers`")
        self._options: dict[str, Any] = {
            "client.id": "tidegauge-incidents",
            "linger.ms": 5,
            "message.timeout.ms": int(timeout_s * 1000),
            **options,
            "acks": "all",
            "enable.idempotence": True,
            "error_cb": self._remember,
        }
        self._producer = self._connect()

    def _connect(self) -> Producer:
        try:
            return Producer(self._options, logger=_silent)
        except KafkaException as error:
            raise BadSettings(f"kafka `{self.name}`: {self._words(error.args[0])}") from None

    def _remember(self, error: KafkaError) -> None:
        self._trouble = self._words(error)

    def write(self, rows: Sequence[Incident]) -> None:
        """Produce a batch and wait for its acknowledgements.

        Raises
        ------
        DeliveryFailed
            Retryable, unless a message itself is refused (too large).
        """
        failures: list[KafkaError] = []
        acknowledgements = 0

        def acknowledged(error: KafkaError | None, _message: object) -> None:
            nonlocal acknowledgements
            if error is None:
                acknowledgements += 1
            else:
                failures.append(error)

        self._trouble = ""
        for incident in rows:
            self._produce(incident, acknowledged, failures)
        # `message.timeout.ms` bounds every message; the rest is for its report.
        self._producer.flush(self._timeout_s + 5.0)
        # Not what `flush` returns: that counts librdkafka's own notices too.
        missing = len(rows) - acknowledgements - len(failures)
        if missing:
            self._restart()
            raise self._failed(f"{missing} of {len(rows)} messages unacknowledged after {self._timeout_s:g} s", True)
        if failures:
            fatal = any(f.fatal() for f in failures)
            if fatal:
                self._restart()
            permanent = [f for f in failures if f.code() in PERMANENT]
            worst = (permanent or failures)[0]
            raise self._failed(f"{len(failures)} of {len(rows)} messages: {self._words(worst)}", not permanent)

    def _produce(self, incident: Incident, acknowledged: Any, failures: list[KafkaError]) -> None:
        key = incident.incident_id.encode("utf-8", "replace")
        value = msgspec.json.encode(incident)
        try:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=acknowledged)
            except BufferError:
                self._producer.flush(self._timeout_s)
                self._producer.produce(self._topic, value, key, on_delivery=acknowledged)
        except KafkaException as error:
            failures.append(error.args[0])
        except BufferError:
            raise self._failed("the local queue is full", True) from None

    def _restart(self) -> None:
        """Begin again with a new producer: a fatal error, or messages in limbo, cannot be mended in the old one."""
        self._producer.purge()
        self._producer.flush(0.1)
        self._producer = self._connect()

    def _failed(self, what: str, retryable: bool) -> DeliveryFailed:
        why = f"; {self._trouble}" if self._trouble else ""
        then = "will be retried" if retryable else "not retried. Check `message.max.bytes` of the topic"
        return DeliveryFailed(f"kafka `{self.name}`: topic {self._topic}: {what}{why}; {then}.", retryable=retryable)

    def _words(self, error: KafkaError) -> str:
        text = f"{error.name()} ({error.str()})"
        for secret in self._hidden:
            text = text.replace(secret, HIDDEN)
        return text

    def close(self) -> None:
        """Drop what is unacknowledged; the outbox still has it."""
        self._producer.purge()
        self._producer.flush(1.0)
