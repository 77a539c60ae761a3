"""The Kafka source on real brokers: restarts, positions that are gone, codecs, transactions, large messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from flows.assembly import Parts
from flows.sources.kafka_topics import Brokers, Topic, TopicWatch
from schemas.errors import TidegaugeError
from tests.flows.kafka_feed import Feed, Opened, count, event, parts_of_a_flow, rounds
from tests.servers.cache import free_port
from tests.servers.kafka import KafkaBroker

pytestmark = pytest.mark.server

Saved = dict[str, Any]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return parts_of_a_flow()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that tests may restart; its topics take messages of 3 MB."""
    it = KafkaBroker(
        tmp_path_factory.mktemp("kafka"), free_port(), free_port(), settings={"message.max.bytes": "3000000"}
    )
    it.start()
    yield it
    it.kill()


@pytest.fixture(scope="module")
def admin(broker: KafkaBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})


def create(admin: AdminClient, topic: str, partitions: int = 1, **config: str) -> None:
    """Make a topic; one of the same name may just be going."""
    for _ in range(100):
        try:
            admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(20)
            return
        except Exception as problem:
            if "already exists" not in str(problem):
                raise
    raise AssertionError(f"{topic} does not go away")


@pytest.fixture
def feed(broker: KafkaBroker, parts: Parts, admin: AdminClient) -> Feed:
    it = Feed(broker.bootstrap_servers, parts, real=True)
    create(admin, it.topic)
    return it


def delete_before(admin: AdminClient, feed: Feed, offset: int) -> None:
    """What retention does, at once."""
    for future in admin.delete_records([TopicPartition(feed.topic, 0, offset)]).values():
        assert future.result(20).low_watermark == offset


def offsets(opened: Opened) -> list[int]:
    return [offset for _, offset in opened.messages()]


def lost(opened: Opened) -> int:
    return sum(i.lost for i in opened.items)


def read_and_stop(feed: Feed, n: int, **options: Any) -> Saved:
    """Read at least n messages from the beginning, then end; returns the saved state."""
    opened = feed.open(feed.source(block_messages=n, **options))
    opened.read(count(n))
    saved = opened.snapshot()
    opened.close()
    return saved


@pytest.mark.parametrize("end", [KafkaBroker.stop, KafkaBroker.kill], ids=["clean", "killed"])
def test_a_restart_of_the_broker_neither_loses_nor_doubles(
    end: Callable[[KafkaBroker], None], broker: KafkaBroker, feed: Feed
) -> None:
    feed.send(0, *range(100))
    opened = feed.open(feed.source(block_messages=30))
    opened.read(count(40))
    end(broker)
    opened.read(rounds(2_000))  # what had been fetched, then nothing
    broker.start()
    feed.send(0, *range(100, 200))
    opened.read(count(200))
    assert offsets(opened) == list(range(200))
    assert lost(opened) == 0
    opened.close()


def test_what_retention_deleted_unread_is_counted_exactly_once(feed: Feed, admin: AdminClient, capsys: Any) -> None:
    feed.send(0, *range(100))
    saved = read_and_stop(feed, 40)  # the process is down …
    delete_before(admin, feed, 70)
    opened = feed.open(feed.source(), saved)
    opened.read(count(30))
    assert offsets(opened) == list(range(70, 100))
    assert lost(opened) == 30
    said = capsys.readouterr()
    assert "retention has deleted" in said.out + said.err
    again = opened.snapshot()
    opened.close()
    opened = feed.open(feed.source(), again)
    feed.send(0, 100)
    opened.read(count(1))
    assert lost(opened) == 0
    assert opened.parts[f"{feed.topic}/0"].lost == 30  # still known after a restart
    opened.close()
    # A crash before the loss was saved: told again from the older state, and the total is the same.
    opened = feed.open(feed.source(), saved)
    opened.read(count(31))
    assert (lost(opened), opened.parts[f"{feed.topic}/0"].lost) == (30, 30)
    opened.close()


def test_a_loss_of_everything_is_told_without_a_message_to_read(feed: Feed, admin: AdminClient) -> None:
    feed.send(0, *range(50))
    saved = read_and_stop(feed, 10)
    delete_before(admin, feed, 50)
    opened = feed.open(feed.source(), saved)
    opened.read(lambda o: lost(o) > 0)
    assert (lost(opened), offsets(opened)) == (40, [])
    opened.close()


def test_retention_that_overtakes_a_reader_is_counted_from_the_position_it_asks_for(
    feed: Feed, admin: AdminClient
) -> None:
    opened = feed.open(feed.source())
    feed.send(0, *range(10))
    opened.read(count(10))
    reader = opened.parts[f"{feed.topic}/0"].reader
    reader.consumer.pause([TopicPartition(feed.topic, 0)])  # slow
    feed.send(0, *range(10, 60))
    delete_before(admin, feed, 40)
    reader.consumer.resume([TopicPartition(feed.topic, 0)])
    opened.read(lambda o: 59 in offsets(o))
    read = offsets(opened)
    assert read == sorted(set(read))
    assert len(read) + lost(opened) == 60
    assert lost(opened) in (0, 30)  # 0 when the client held them already
    opened.close()


def test_a_loss_that_was_saved_before_it_was_told_is_told_after_the_restart(feed: Feed, admin: AdminClient) -> None:
    feed.send(0, *range(50))
    saved = read_and_stop(feed, 10)
    delete_before(admin, feed, 50)
    opened = feed.open(feed.source(), saved)
    (part,) = opened.parts.values()
    while not part.lost:  # another partition's turn may find it
        part.reader.poll(10)
    saved = opened.snapshot()
    opened.close()
    opened = feed.open(feed.source(), saved)
    opened.read(lambda o: lost(o) > 0)
    assert lost(opened) == 40
    opened.close()


@pytest.mark.parametrize(("policy", "goes_on_at", "counted"), [("earliest", 70, 30), ("latest", 100, 60)])
def test_a_position_out_of_range_follows_the_setting(
    policy: str, goes_on_at: int, counted: int, feed: Feed, admin: AdminClient
) -> None:
    feed.send(0, *range(100))
    saved = read_and_stop(feed, 40)
    delete_before(admin, feed, 70)
    opened = feed.open(feed.source(out_of_range=policy), saved)
    opened.read(lambda o: lost(o) > 0)
    assert lost(opened) == counted
    feed.send(0, 100)
    opened.read(lambda o: 100 in offsets(o))
    assert offsets(opened)[0] == goes_on_at
    opened.close()


def test_a_position_out_of_range_stops_if_told_so(feed: Feed, admin: AdminClient) -> None:
    feed.send(0, *range(100))
    saved = read_and_stop(feed, 40)
    delete_before(admin, feed, 70)
    opened = feed.open(feed.source(out_of_range="stop"), saved)
    with pytest.raises(TidegaugeError, match=r"position 40 of .* cannot be read any more .*kafka\.out_of_range"):
        opened.read(count(1))
    opened.close()


def test_markers_of_transactions_and_compaction_gaps_are_no_loss(feed: Feed, admin: AdminClient) -> None:
    producer = Producer({"bootstrap.servers": feed.address, "transactional.id": feed.topic, "log_level": 0})
    producer.init_transactions(30)
    for after_s, commit in ((0, True), (10, False), (20, True)):
        producer.begin_transaction()
        for i in range(3):
            producer.produce(feed.topic, event(after_s + i), partition=0)
        producer.flush(30)
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)
    opened = feed.open(feed.source())
    opened.read(lambda o: len(offsets(o)) >= 6 and _at_end(o))
    assert offsets(opened) == [0, 1, 2, 8, 9, 10]  # 3, 7 and 11 are markers, 4 to 6 were aborted
    saved = opened.snapshot()
    assert saved[f"{feed.topic}/0"][0] == 12
    opened.close()
    delete_before(admin, feed, 12)  # the marker at the end goes, too, and nothing unread with it
    opened = feed.open(feed.source(), saved)
    feed.send(0, 30)
    opened.read(count(1))
    assert (offsets(opened), lost(opened)) == ([12], 0)
    opened.close()


@pytest.mark.parametrize("refilled", [10, 200], ids=["position_beyond_its_end", "position_inside_other_data"])
def test_a_topic_made_anew_is_read_from_its_beginning(
    refilled: int, feed: Feed, admin: AdminClient, capsys: Any
) -> None:
    feed.send(0, *range(100))
    saved = read_and_stop(feed, 100)
    admin.delete_topics([feed.topic])[feed.topic].result(20)
    create(admin, feed.topic)
    feed.send(0, *range(100, 100 + refilled))
    opened = feed.open(feed.source(), saved)
    opened.read(count(refilled))
    assert offsets(opened) == list(range(refilled))
    said = capsys.readouterr()
    assert "topic was made anew" in said.out + said.err
    again = opened.snapshot()
    opened.close()
    opened = feed.open(feed.source(), again)  # its positions are the new topic's now
    feed.send(0, 100 + refilled)
    opened.read(count(1))
    assert offsets(opened) == [refilled]
    opened.close()


def test_a_topic_made_anew_while_it_is_read_is_noticed_and_read_once(feed: Feed, admin: AdminClient) -> None:
    feed.send(0, *range(100))
    opened = feed.open(
        feed.source(identify=lambda: feed.described().identity),
    )
    opened.read(count(100))
    brokers = Brokers({"bootstrap.servers": feed.address})
    watch = TopicWatch(brokers, [feed.described()], every_s=5.0)
    watch.look()
    assert (watch.changed.is_set(), watch.missing()) == (False, "")
    admin.delete_topics([feed.topic])[feed.topic].result(20)
    create(admin, feed.topic)
    feed.send(0, *range(100, 110))
    opened.read(lambda o: len(offsets(o)) >= 110)
    assert offsets(opened)[100:] == list(range(10))
    watch.look()
    assert watch.changed.is_set()
    assert "made anew" in watch.missing()
    saved = opened.snapshot()
    opened.close()
    opened = feed.open(feed.source(), saved)  # the restart that follows begins nothing again
    feed.send(0, 110)
    opened.read(count(1))
    assert offsets(opened) == [10]
    opened.close()
    brokers.close()


def test_an_added_partition_is_noticed_and_read_from_its_beginning_whatever_start_says(
    feed: Feed, admin: AdminClient
) -> None:
    feed.send(0, *range(5))
    first = feed.open(feed.source(start="earliest"))
    first.read(count(5))
    saved = first.snapshot()
    first.close()
    brokers = Brokers({"bootstrap.servers": feed.address})
    seen: dict[int, int] = {}
    watch = TopicWatch(brokers, [feed.described()], every_s=5.0, on_ends=lambda topic, ends: seen.update(ends))
    admin.create_partitions([NewPartitions(feed.topic, 3)])[feed.topic].result(20)
    watch.look()
    assert watch.changed.is_set()
    assert watch.unread() == {feed.topic: 2}
    assert "2 new partitions" in watch.missing()
    feed.renew()
    feed.send(2, 7, 8)
    watch.look()
    assert seen[0] == 5
    brokers.close()
    second = feed.open(feed.source(start="latest", known=saved.keys()), saved)
    second.read(count(2))
    assert second.messages() == [(f"{feed.topic}/2", 0), (f"{feed.topic}/2", 1)]
    second.close()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_batches_of_every_codec_are_read(codec: str, feed: Feed) -> None:
    producer = Producer({"bootstrap.servers": feed.address, "compression.type": codec, "linger.ms": 50, "log_level": 0})
    for i in range(500):
        producer.produce(feed.topic, event(i), partition=0, headers={"trace": b"1"})
    assert producer.flush(30) == 0
    opened = feed.open(feed.source())
    opened.read(count(500))
    assert offsets(opened) == list(range(500))
    opened.close()


def test_messages_are_taken_up_to_the_limit_and_refused_beyond_it_with_a_reason(feed: Feed) -> None:
    limit = 1_048_576
    producer = Producer({"bootstrap.servers": feed.address, "message.max.bytes": 3_000_000, "log_level": 0})
    bare = len(event(1, error_message=""))
    for payload in (
        event(1, error_message="x" * (limit - bare)),
        event(2, error_message="x" * (limit - bare + 1)),
        event(3, error_message="x" * (2 * limit)),
        b"",
        None,
        event(4),
    ):
        producer.produce(feed.topic, payload, partition=0)
    assert producer.flush(30) == 0
    opened = feed.open(feed.source())
    opened.read(lambda o: 5 in offsets(o))
    dead = [(d.offset, d.reason.value) for i in opened.items if i.batch is not None for d in i.batch.dead]
    # The first is small enough, but no field may be so long; that is said of the field, not of the message.
    assert dead[0][0] == 0
    assert dead[0][1] != "too_large"
    assert dead[1:3] == [(1, "too_large"), (2, "too_large")]
    assert [offset for offset, _ in dead[3:]] == [3, 4]
    assert dead[4][1] == "empty"
    assert offsets(opened) == [5]
    opened.close()


def test_large_messages_do_not_fill_the_memory(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.sources.kafka_reader.QUEUED_BYTES", 4_000_000)
    producer = Producer({"bootstrap.servers": feed.address, "message.max.bytes": 3_000_000, "log_level": 0})
    for i in range(24):
        producer.produce(feed.topic, event(i, prompt="x" * 900_000), partition=0)
    assert producer.flush(30) == 0
    opened = feed.open(feed.source(block_messages=1))
    reader = opened.parts[f"{feed.topic}/0"].reader
    most = 0

    def done(o: Opened) -> bool:
        nonlocal most
        most = max(most, sum(len(m) for q in reader.queues.values() for m in q))
        return 23 in offsets(o)

    opened.read(done)
    assert most <= 5_500_000
    assert reader._bytes == 0
    opened.close()


def _at_end(opened: Opened) -> bool:
    return all(p.reader.caught_up for p in opened.parts.values())


def test_a_topic_that_is_gone_is_said(feed: Feed, admin: AdminClient) -> None:
    brokers = Brokers({"bootstrap.servers": feed.address})
    watch = TopicWatch(brokers, [Topic(feed.topic, (0,))], every_s=1.0)
    admin.delete_topics([feed.topic])[feed.topic].result(20)
    watch.look()
    assert "cannot be read" in watch.missing()
    assert not watch.changed.is_set()
    brokers.close()
