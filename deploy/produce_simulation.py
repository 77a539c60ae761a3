"""Produces a simulated company's events to Kafka: the recent past at once, then every event at its own time.

The past lets detectors learn what is usual, so that the first incidents can open within minutes. It is left out where
the topics hold messages already, for it would be counted a second time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from flows.simulate import Minute, planned_incidents, simulate

NS = 1_000_000_000

Put = Callable[[str, bytes, bytes, int], None]
"""(topic, key, message, time in milliseconds)."""


def pace(
    minutes: Iterable[Minute],
    put: Put,
    *,
    requests_topic: str,
    gpus_topic: str,
    clock: Callable[[], float],
    wait: Callable[[float], object],
) -> None:
    """Hand over every event, none before its time.

    Parameters
    ----------
    put
        Takes an event.
    clock
        Seconds since the epoch.
    wait
        Waits for so many seconds; called at least once a minute of simulated time, with 0 where nothing is to wait for.
    """
    for minute in minutes:
        events = [
            (int(at), topic, key, message)
            for topic, times, keys, messages in (
                (requests_topic, minute.request_at_ns, minute.request_keys, minute.requests),
                (gpus_topic, minute.gpu_at_ns, minute.gpu_keys, minute.gpus),
            )
            for at, key, message in zip(times.tolist(), keys, messages, strict=True)
        ]
        # A stable sort: each producer's events keep their order among equal times.
        events.sort(key=lambda event: event[0])
        wait(0.0)
        for at_ns, topic, key, message in events:
            while (early := at_ns / NS - clock()) > 0:
                wait(min(early, 1.0))
            put(topic, key, message, at_ns // 1_000_000)


def holds_messages(bootstrap: str, topic: str) -> bool:
    """Whether a topic holds a message.

    Raises
    ------
    KafkaException
        The broker does not answer, or the topic is missing.
    """
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "tidegauge-simulator", "enable.auto.commit": False}
    )
    try:
        found = consumer.list_topics(topic, timeout=30).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30) for p in found.partitions]
        return any(high > low for low, high in ends)
    finally:
        consumer.close()


def arguments(given: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True, help="Kafka's address")
    parser.add_argument("--requests-topic", default="ai.requests")
    parser.add_argument("--gpus-topic", default="ai.gpus")
    parser.add_argument("--rate", type=float, default=20.0, help="mean requests per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=int, default=1_440, help="minutes from now on")
    parser.add_argument("--history-minutes", type=int, default=180, help="minutes of the past")
    parser.add_argument("--incidents", default="default", help="default, none, or a file like truth.jsonl")
    parser.add_argument("--alive", type=Path, default=None, help="file that is touched while events flow")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    """Produce until the simulated time ends or somebody interrupts."""
    chosen = arguments(given)
    history = 0 if holds_messages(chosen.bootstrap, chosen.requests_topic) else chosen.history_minutes
    start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=history)
    length = history + chosen.minutes
    plan = planned_incidents(chosen.incidents, minutes=length, seed=chosen.seed, start=start)
    producer = Producer(
        {
            "bootstrap.servers": chosen.bootstrap,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 50,
        }
    )
    beat = 0.0

    def put(topic: str, key: bytes, message: bytes, at_ms: int) -> None:
        nonlocal beat
        while True:
            try:
                producer.produce(topic, message, key, timestamp=at_ms)
                break
            except BufferError:
                producer.poll(0.5)
        producer.poll(0)
        if chosen.alive is not None and time.monotonic() - beat > 10:
            chosen.alive.touch()
            beat = time.monotonic()

    minutes = simulate(minutes=length, seed=chosen.seed, rate=chosen.rate, start=start, incidents=plan)
    try:
        pace(
            minutes,
            put,
            requests_topic=chosen.requests_topic,
            gpus_topic=chosen.gpus_topic,
            clock=time.time,
            # Polls while it waits, so that deliveries are reported.
            wait=producer.poll,
        )
    except KeyboardInterrupt:
        return 130
    finally:
        producer.flush(10)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
