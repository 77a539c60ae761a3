"""Produces the simulated company's events to Kafka, a little ahead of the flow and never more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from confluent_kafka import Producer


class Minute(Protocol):
    """One simulated minute, as `flows.simulate` makes it."""

    start_ns: int
    requests: list[bytes]
    request_at_ns: Any
    request_keys: list[bytes]
    gpus: list[bytes]
    gpu_at_ns: Any
    gpu_keys: list[bytes]


class SimulationProducer(threading.Thread):
    """Sends minutes of simulated events.

    Parameters
    ----------
    address
        Broker.
    minutes
        What to send.
    requests_topic, gpus_topic
        Where to.
    consumed
        Events that the flow has read so far.
    max_ahead
        Events that may wait in the broker.
    """

    def __init__(
        self,
        address: str,
        minutes: Iterable[Minute],
        *,
        requests_topic: str,
        gpus_topic: str,
        consumed: Callable[[], int],
        max_ahead: int = 20_000,
    ) -> None:
        super().__init__(name="simulation", daemon=True)
        self.minutes = minutes
        self.topics = (requests_topic, gpus_topic)
        self.consumed = consumed
        self.max_ahead = max_ahead
        self.sent = 0
        self.simulated_ns = 0
        self.finished = threading.Event()
        self.stopped = threading.Event()
        self.problem: BaseException | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "compression.type": "lz4",
                "linger.ms": 5,
                "log_level": 0,
                "queue.buffering.max.messages": 1_000_000,
            }
        )

    def run(self) -> None:
        """Send everything, then say so."""
        try:
            for minute in self.minutes:
                self._send(self.topics[0], minute.requests, minute.request_keys, minute.request_at_ns)
                self._send(self.topics[1], minute.gpus, minute.gpu_keys, minute.gpu_at_ns)
                self.simulated_ns = minute.start_ns
                if self.stopped.is_set():
                    break
            self._producer.flush(30)
        except BaseException as problem:
            self.problem = problem
        finally:
            self.finished.set()

    def _send(self, topic: str, values: list[bytes], keys: list[bytes], at_ns: Any) -> None:
        for value, key, at in zip(values, keys, at_ns.tolist(), strict=True):
            if self.sent % 1_000 == 0:
                self._producer.poll(0)
                while self.sent - self.consumed() > self.max_ahead and not self.stopped.is_set():
                    self._producer.poll(0.01)
            self._producer.produce(topic, value, key, timestamp=at // 1_000_000)
            self.sent += 1
