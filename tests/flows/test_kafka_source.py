"""The Kafka source on the embedded broker, part by part, with clocks of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flows.assembly import Parts
from flows.demo.broker import EmbeddedBroker
from flows.sources.kafka_topics import list_partitions
from schemas.errors import BadSettings
from tests.flows.kafka_feed import T0, Feed, caught_up, count, parts_of_a_flow, rounds

S = 1_000_000_000
NEVER = -(2**62)


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    it = EmbeddedBroker()
    yield it
    it.close()


@pytest.fixture(scope="module")
def parts() -> Parts:
    return parts_of_a_flow()


@pytest.fixture
def feed(broker: EmbeddedBroker, parts: Parts) -> Feed:
    it = Feed(broker.address, parts)
    broker.create(it.topic)
    return it


def test_every_message_of_every_partition_arrives_once(feed: Feed) -> None:
    for partition, n in enumerate((700, 3, 0, 250)):
        feed.send(partition, *(i / 100 for i in range(n)))
    opened = feed.open(feed.source(block_messages=64))
    opened.read(lambda o: count(953)(o) and caught_up(o))
    expected = [(f"{feed.topic}/{p}", o) for p, n in enumerate((700, 3, 0, 250)) for o in range(n)]
    assert sorted(opened.messages()) == expected
    assert all(len(i.batch.columns) <= 64 for i in opened.items if i.batch is not None)
    assert [i.lag for i in opened.items if i.partition == f"{feed.topic}/0"][-1] == 0
    opened.close()


def test_a_partition_that_ends_does_not_send_the_others_back(feed: Feed) -> None:
    for partition in range(4):
        feed.send(partition, *range(20))
    finished: list[bool] = []
    opened = feed.open(feed.source(block_messages=5, stop_at_end=lambda: bool(finished)))
    opened.read(lambda o: count(80)(o) and caught_up(o))
    ending = opened.parts.pop(f"{feed.topic}/0")
    ending.close()  # the others still read
    feed.send(1, *range(20, 30))
    opened.read(count(90))
    finished.append(True)
    opened.read(lambda o: not o.parts)
    assert len(opened.messages()) == len(set(opened.messages())) == 90
    assert sorted(i.partition for i in opened.items if i.watermark_ns == 2**62) == [
        f"{feed.topic}/{p}" for p in (1, 2, 3)
    ]


def test_a_snapshot_position_is_where_the_next_start_goes_on(feed: Feed) -> None:
    feed.send(0, *range(10))
    feed.send(3, *range(10))
    first = feed.open(feed.source(block_messages=4))
    first.read(count(8))
    saved = first.snapshot()
    seen = set(first.messages())
    first.close()
    second = feed.open(feed.source(), saved)
    second.read(count(20 - len(seen)))
    assert not seen & set(second.messages())
    assert len(seen) + len(second.messages()) == 20
    assert second.parts[f"{feed.topic}/0"].decoder.watermark_ns == (T0 + 9 - 5) * S
    second.close()


def test_latest_means_the_end_at_the_first_start_also_after_a_restart(feed: Feed) -> None:
    feed.send(2, 0, 1)
    first = feed.open(feed.source(start="latest"))
    saved = first.snapshot()  # nothing was read when it stopped
    first.close()
    feed.send(2, 2, 3, 4)
    feed.send(1, 5)
    second = feed.open(feed.source(start="latest"), saved)
    second.read(count(4))
    assert sorted(second.messages()) == [(f"{feed.topic}/1", 0), *((f"{feed.topic}/2", o) for o in (2, 3, 4))]
    second.close()


def test_state_that_cannot_be_read_is_a_cold_start_at_the_saved_position(feed: Feed, capsys: Any) -> None:
    feed.send(0, *range(10))
    first = feed.open(feed.source(block_messages=4))
    first.read(count(4))
    saved = first.snapshot()
    first.close()
    name = f"{feed.topic}/0"
    offset, state, *rest = saved[name]
    second = feed.open(feed.source(), {**saved, name: (offset, state[: len(state) // 2], *rest)})
    said = capsys.readouterr()
    assert "cold start" in said.out + said.err
    assert name in said.out + said.err
    second.read(count(10 - offset))
    assert second.messages()[0] == (name, offset)
    second.close()


def test_tombstones_become_dead_letters_and_nothing_stalls(feed: Feed) -> None:
    feed.send(0, 1)
    feed.producer.produce(feed.topic, None, b"key", partition=0)
    feed.send(0, 2)
    opened = feed.open(feed.source())
    opened.read(count(2))
    assert [o for _, o in opened.messages()] == [0, 2]
    dead = [(d.offset, d.reason.value) for i in opened.items if i.batch is not None for d in i.batch.dead]
    assert dead == [(1, "empty")]
    opened.close()


def test_an_idle_partition_says_so_after_the_timeout_and_its_time_goes_on_with_the_clock(feed: Feed) -> None:
    feed.send(0, 100)
    opened = feed.open(feed.source(idle_timeout_s=30.0))
    opened.read(lambda o: count(1)(o) and caught_up(o))
    feed.clock.now += 29.9
    opened.read(rounds(5))
    assert not any(i.idle for i in opened.items)
    feed.clock.now += 10.1
    beats = {i.partition: i for i in opened.read(lambda o: sum(i.idle for i in o.items) >= 4)}
    assert beats[f"{feed.topic}/0"].watermark_ns == (T0 + 100 - 5 + 40) * S
    assert {beats[f"{feed.topic}/{p}"].watermark_ns for p in (1, 2, 3)} == {NEVER}
    assert all(i.lag == 0 for i in beats.values())
    assert opened.read(rounds(5)) == []  # no more than one beat a second
    feed.send(0, 101)
    (item,) = (i for i in opened.read(count(2)) if i.batch is not None)
    assert not item.idle
    opened.close()


def test_after_a_restart_the_clock_goes_on_from_the_saved_watermark(feed: Feed) -> None:
    feed.send(0, 100)
    first = feed.open(feed.source())
    first.read(count(1))
    saved = first.snapshot()
    first.close()
    second = feed.open(feed.source(idle_timeout_s=10.0), saved)
    second.read(caught_up)
    feed.clock.now += 12
    beats = {i.partition: i for i in second.read(lambda o: sum(i.idle for i in o.items) >= 4)}
    assert beats[f"{feed.topic}/0"].watermark_ns == (T0 + 100 - 5 + 12) * S
    second.close()


def test_a_partition_with_a_backlog_is_never_idle(feed: Feed) -> None:
    feed.send(0, *range(50))
    opened = feed.open(feed.source(block_messages=10, idle_timeout_s=1.0))
    while len(opened.messages()) < 50:
        feed.clock.now += 5
        opened.read(count(min(len(opened.messages()) + 1, 50)))
    assert not [i for i in opened.items if i.idle and i.partition == f"{feed.topic}/0"]
    opened.close()


def test_a_partition_that_has_nothing_keeps_memory_bounded_while_another_has_much(feed: Feed) -> None:
    feed.send(0, *(i / 1000 for i in range(5_000)))
    opened = feed.open(feed.source(block_messages=100))
    reader = opened.parts[f"{feed.topic}/0"].reader
    most = 0
    while len(opened.messages()) < 5_000:
        opened.read(count(min(len(opened.messages()) + 1, 5_000)))
        most = max(most, sum(map(len, reader.queues.values())))
    assert 100 <= most <= 500
    opened.close()


def test_an_empty_topic_is_read_without_an_item(feed: Feed) -> None:
    source = feed.source()
    assert "has not been read" in source.missing()
    opened = feed.open(source)
    opened.read(caught_up)
    assert opened.items == []
    assert source.missing() == ""
    opened.close()


def test_a_stop_ends_every_partition_where_it_is(feed: Feed) -> None:
    feed.send(0, *range(10))
    stopping: list[bool] = []
    opened = feed.open(feed.source(block_messages=4, stopping=lambda: bool(stopping)))
    opened.read(count(4))
    saved = opened.snapshot()
    stopping.append(True)
    assert opened.read(lambda o: not o.parts) == []  # no closing item: windows stay open for the next start
    assert saved[f"{feed.topic}/0"][0] == 4


def test_a_worker_has_one_consumer_and_gives_it_back(feed: Feed) -> None:
    source = feed.source()
    opened = feed.open(source)
    assert len({id(p.reader) for p in opened.parts.values()}) == 1
    opened.close()
    again = feed.open(source)  # the same source serves a second run
    feed.send(0, 1)
    again.read(count(1))
    again.close()


def test_a_missing_topic_or_broker_is_said_with_the_setting_to_change() -> None:
    with pytest.raises(BadSettings, match=r"kafka\.bootstrap_servers"):
        list_partitions({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "t", timeout_s=0.5)


@pytest.mark.parametrize("foreign", [7, b"x", ("a", "b"), (3,), (1, 2, 3, 4, 5, 6, 7), {"offset": 3}, (1, None)])
def test_a_position_that_is_none_of_ours_is_a_cold_start(feed: Feed, foreign: Any) -> None:
    feed.send(0, 1.0, 2.0)
    opened = feed.open(feed.source(), {f"{feed.topic}/0": foreign})
    opened.read(count(2))
    assert opened.parts[f"{feed.topic}/0"].offset == 2
    opened.close()


def test_the_position_that_an_earlier_version_saved_is_read(feed: Feed) -> None:
    feed.send(0, 1.0, 2.0, 3.0)
    first = feed.open(feed.source(block_messages=2))
    first.read(count(2))
    offset, decoder, *_ = first.parts[f"{feed.topic}/0"].snapshot()
    first.close()
    second = feed.open(feed.source(), {f"{feed.topic}/0": (offset, decoder)})
    assert second.read(count(1))
    assert second.messages() == [(f"{feed.topic}/0", 2)]
    second.close()


def test_silence_of_the_brokers_is_not_silence_of_the_producers(parts: Parts) -> None:
    broker = EmbeddedBroker()
    feed = Feed(broker.address, parts)
    broker.create(feed.topic)
    feed.send(0, 1.0, 2.0)
    opened = feed.open(feed.source())
    opened.read(lambda o: count(2)(o) and caught_up(o))
    broker.close()
    feed.clock.now += 100.0
    for _ in range(5):
        for part in opened.parts.values():
            opened.items += part.next_batch()
        feed.clock.now += 2.0
    assert not any(item.idle for item in opened.items), "what producers hold back meanwhile would come too late"
    opened.close()
