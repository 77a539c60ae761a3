"""Dead letters as a topic: a broker that refuses or is away is counted and said, and does not hold up the flow."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from flows import dead_letter_topic
from flows.dead_letter_topic import CHECKPOINT_S, DeadLetterTopic
from flows.demo.broker import EmbeddedBroker
from schemas.dead_letter import DeadLetter
from schemas.errors import Reason
from tests.servers.cache import free_port


def letter(offset: int, payload: str = "") -> DeadLetter:
    return DeadLetter(
        reason=Reason.EMPTY, detail="", topic="t", partition=0, offset=offset, at_ns=0, payload=payload
    )  # fmt: skip


def test_what_was_sent_is_acknowledged_at_the_checkpoint() -> None:
    broker = EmbeddedBroker()
    it = DeadLetterTopic("dead", {"bootstrap.servers": broker.address})
    it.put([letter(i) for i in range(100)])
    it.checkpoint()
    assert (it.sent, it.failed, it.waiting) == (100, 0, 0)
    it.close()
    broker.close()


def test_a_broker_that_is_away_holds_up_one_checkpoint_and_no_further_one() -> None:
    it = DeadLetterTopic("dead", {"bootstrap.servers": f"127.0.0.1:{free_port()}"})
    waits = []
    for epoch in range(20):
        it.put([letter(epoch)])
        begun = time.monotonic()
        it.checkpoint()
        waits.append(time.monotonic() - begun)
    assert waits[0] >= CHECKPOINT_S
    assert sum(waits[1:]) < CHECKPOINT_S
    assert it.waiting >= 20
    it.close()


def test_more_letters_than_may_wait_are_counted_as_failed_at_once(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(dead_letter_topic, "WAITING_KB", 1)
    it = DeadLetterTopic("dead", {"bootstrap.servers": f"127.0.0.1:{free_port()}"})
    letters = [letter(i, "x" * 500) for i in range(300)]
    begun = time.monotonic()
    it.put(letters)
    assert time.monotonic() - begun < 3 * CHECKPOINT_S  # one wait, not one per letter
    assert it.failed > 250
    it.close()
    assert it.sent == 0
    assert it.failed == 300
    said = capsys.readouterr()
    assert 1 <= (said.out + said.err).count("dead letter not sent") <= 5


@pytest.mark.server
def test_a_letter_that_the_topic_refuses_is_counted_and_the_others_arrive(kafka_broker: str) -> None:
    topic = f"dead-{free_port()}"
    admin = AdminClient({"bootstrap.servers": kafka_broker})
    admin.create_topics([NewTopic(topic, 1, 1, config={"max.message.bytes": "1000"})])[topic].result(20)
    it = DeadLetterTopic(topic, {"bootstrap.servers": kafka_broker, "compression.type": "none"})
    for one in (letter(0), letter(1, "x" * 1_500), letter(2)):
        it.put([one])
        it.checkpoint()
    assert (it.sent, it.failed, it.waiting) == (2, 1, 0)
    it.close()
