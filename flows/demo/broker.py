"""An embedded Kafka: librdkafka's mock cluster, the real wire protocol in this process.

It keeps at most 5 MiB per partition in memory and drops the oldest messages beyond that, so whoever produces must not
run ahead of the consumer (`flows.demo.producer` does not).
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import Producer


class EmbeddedBroker:
    """One broker that lives as long as this object.

    Topics are made when they are first used, with four partitions each.
    """

    def __init__(self) -> None:
        # The address is a placeholder: the mock cluster replaces it with its own.
        self._owner: Any = Producer({"bootstrap.servers": "embedded", "test.mock.num.brokers": 1})
        (broker,) = self._owner.list_topics(timeout=10).brokers.values()
        self.address = f"{broker.host}:{broker.port}"

    def create(self, *topics: str) -> None:
        """Make topics exist, so that consumers see their partitions."""
        for topic in topics:
            self._owner.list_topics(topic, timeout=10)

    def close(self) -> None:
        """Stop the broker."""
        self._owner.flush(5)
        self._owner = None
