from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Consumer, Producer


@pytest.mark.server
def test_a_message_goes_through_the_real_broker(kafka_broker: str) -> None:
    topic = f"test-{uuid.uuid4().hex[:8]}"
    producer = Producer({"bootstrap.servers": kafka_broker})
    producer.produce(topic, b"hello", partition=2)
    assert producer.flush(20) == 0
    consumer = Consumer({"bootstrap.servers": kafka_broker, "group.id": topic, "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        assert (message.value(), message.partition(), message.offset()) == (b"hello", 2, 0)
    finally:
        consumer.close()
