"""Which librdkafka options `kafka.options` takes, and which of them are secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException

from flows.settings import Kafka

_BEGINNING = "where reading begins is decided by `kafka.start`, `kafka.out_of_range` and the saved state"
_POSITIONS = "positions are part of the saved state"
_INCIDENTS = "incidents and dead letters are always written to all in-sync replicas"

REFUSED: Mapping[str, str] = {
    "bootstrap.servers": "use `kafka.bootstrap_servers`",
    "metadata.broker.list": "use `kafka.bootstrap_servers`",
    "auto.offset.reset": _BEGINNING,
    "topic.auto.offset.reset": _BEGINNING,
    "enable.auto.commit": _POSITIONS,
    "auto.commit.enable": _POSITIONS,
    "auto.commit.interval.ms": _POSITIONS,
    "enable.auto.offset.store": _POSITIONS,
    "offset.store.method": _POSITIONS,
    "enable.partition.eof": "the idle timeout needs it",
    "isolation.level": "what an aborted transaction wrote is never read",
    "group.instance.id": "partitions are assigned by Tidegauge, not by a consumer group",
    "group.protocol": "partitions are assigned by Tidegauge, not by a consumer group",
    "partition.assignment.strategy": "partitions are assigned by Tidegauge, not by a consumer group",
    "acks": _INCIDENTS,
    "request.required.acks": _INCIDENTS,
    "enable.idempotence": _INCIDENTS,
    "transactional.id": _INCIDENTS,
    "message.timeout.ms": "a message that waits for the broker is bounded by Tidegauge, so that nothing stalls",
    "delivery.timeout.ms": "a message that waits for the broker is bounded by Tidegauge, so that nothing stalls",
}
"""Options that would break a promise, or that a setting of ours decides, with the reason."""

_SECRET = ("password", "secret", "ssl.key.pem", "sasl.oauthbearer.config", "sasl.jaas.config")


def is_secret(name: str) -> bool:
    """Whether an option's value must not stand in the settings file, nor be printed."""
    return any(part in name for part in _SECRET)


def problems(kafka: Kafka) -> Iterator[tuple[str, str]]:
    """What is wrong with `kafka.options`, without a network: (path, what and what to do)."""
    for name in kafka.options:
        if name in REFUSED:
            yield f"$.kafka.options.{name}", f"`{name}` cannot be set; {REFUSED[name]}"
            return
    if kafka.sasl_password_file is not None and "sasl.password" in kafka.options:
        yield "$.kafka.sasl_password_file", "the password stands in `kafka.options`, too; keep one"
    yield from _unknown(kafka.options)


def _unknown(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Options that librdkafka does not know or whose values it refuses, one by one."""
    for name, value in options.items():
        try:
            # Without an address the client connects to nothing.
            Consumer({"group.id": "tidegauge", "log_level": 0, name: value}).close()
        except (KafkaException, TypeError) as problem:
            error = problem.args[0]
            why = error.str().strip() if isinstance(error, KafkaError) else str(error)
            if "property" in why and name in why:  # other errors are about options that must stand together
                why = "its value" if is_secret(name) else why
                yield f"$.kafka.options.{name}", f"librdkafka does not take it ({why}); see its CONFIGURATION.md"
                return
