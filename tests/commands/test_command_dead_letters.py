"""`tidegauge dead-letters` on a real broker: what is shown, what is sent once more, and that it is sent once."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from flows.__main__ import app
from flows.assembly import Parts
from flows.commands.dead_letters import dead_letters
from flows.dead_letter_topic import DeadLetterTopic
from flows.dead_letters import topics
from flows.dead_letters.replay import REPLAY_OF, Sender
from flows.pricing import PriceBook
from flows.settings import Settings
from schemas.block import Block
from schemas.dead_letter import DeadLetter
from schemas.errors import BadSettings, Reason, TidegaugeError
from schemas.formats import get_format
from schemas.redaction import redact
from sinks.clickhouse import finding_tables
from tests.servers.databases import MigratedDatabases

OLD_MS = 1_767_268_800_000
GOOD = {"at": OLD_MS, "provider": "openai", "model": "m", "status": 200, "input_tokens": 7}


class Case:
    """A source topic with messages of which some were refused, and settings that name it."""

    def __init__(self, broker: str, folder: Path, clickhouse: str | None) -> None:
        self.broker = broker
        self.topic, self.dead = (f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("t", "dead"))
        admin = AdminClient({"bootstrap.servers": broker})
        kept = {"retention.ms": "-1"}  # the messages' time stamps are old, and a broker may look at any moment
        for made in admin.create_topics([NewTopic(t, 2, 1, config=kept) for t in (self.topic, self.dead)]).values():
            made.result(20)
        self.config = folder / f"{self.topic}.yaml"
        self.config.write_text(
            f"kafka: {{bootstrap_servers: '{broker}', requests_topic: {self.topic}, dead_letters_topic: {self.dead}}}\n"
            f"clickhouse: {'null' if clickhouse is None else json.dumps({'url': clickhouse})}\n"
        )
        self.letters: list[DeadLetter] = []

    def produce(self, *values: bytes, stamp_ms: int = OLD_MS) -> None:
        producer = Producer({"bootstrap.servers": self.broker})
        for value in values:
            producer.produce(self.topic, value, key=b"k", partition=1, timestamp=stamp_ms, headers=[("trace", b"1")])
        assert producer.flush(20) == 0

    def read(self, start: int = 0) -> list[Message]:
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": "g", "enable.partition.eof": True})
        consumer.assign([TopicPartition(self.topic, 1, start)])
        found, deadline = [], time.monotonic() + 30
        while time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is not None and message.error():
                break
            if message is not None:
                found.append(message)
        consumer.close()
        return found

    def judged(self) -> tuple[int, list[DeadLetter]]:
        """How many events of the whole topic count, and what is refused."""
        reader = Parts(Settings(), PriceBook.load(None)).partition(self.topic, 1, get_format("request"), None)
        messages = self.read()
        values = [m.value() for m in messages]
        stamps = [m.timestamp()[1] for m in messages]
        batch = reader.feed(Block(self.topic, 1, [m.offset() for m in messages], values, stamps))
        return len(batch.columns), batch.dead

    def keep(self, client: Any, *more: DeadLetter) -> None:
        """Keep the letters of the topic's messages, as the flow does."""
        self.letters = [*self.judged()[1], *more]
        if client is not None:
            client.insert_arrow("dead_letters", finding_tables.dead_letters(self.letters))
        topic = DeadLetterTopic(self.dead, {"bootstrap.servers": self.broker})
        topic.put(self.letters)
        topic.close()

    def letter(self, offset: int, payload: bytes, reason: Reason = Reason.NOT_PARSABLE) -> DeadLetter:
        """A letter that an earlier version wrote."""
        return DeadLetter(
            reason=reason, detail="x", topic=self.topic, partition=1, offset=offset, at_ns=0, payload=redact(payload)
        )

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str, **options: Any) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert dead_letters(*arguments, config=str(self.config), **options) == 0  # type: ignore[arg-type]
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def outcomes(self, capsys: pytest.CaptureFixture[str], *ids: str, **options: Any) -> dict[int, str]:
        return {int(v["id"].split("/")[2]): v["outcome"] for v in self.run(capsys, "replay", *ids, **options)}


@pytest.fixture(params=["topic", "clickhouse"])
def case(request: pytest.FixtureRequest, kafka_broker: str, tmp_path: Path) -> Iterator[tuple[Case, Any]]:
    if request.param == "topic":
        yield Case(kafka_broker, tmp_path, None), None
        return
    url = request.getfixturevalue("clickhouse_server")
    databases: MigratedDatabases = request.getfixturevalue("migrated_databases")
    for client in databases.emptied(url):
        yield Case(kafka_broker, tmp_path, f"{url.rpartition('/')[0]}/{client.database}"), client


def encoded(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


@pytest.mark.server
def test_a_message_that_became_usable_is_sent_once_and_counted_once(
    case: tuple[Case, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    it, client = case
    ahead = encoded(at=OLD_MS + 3_600_000)
    fixed = encoded(prompt="walrus", api_key="sk-0123456789abcdef")
    it.produce(encoded(), b"{", ahead, fixed, encoded(event_id="raw"), encoded(team="other"))
    it.keep(
        client,
        it.letter(3, fixed),
        it.letter(4, encoded(event_id="raw"), Reason.TOO_LATE),
        it.letter(5, b"what stood there before"),
        it.letter(10**6, b"x"),
    )
    assert [(d.offset, d.reason) for d in it.letters[:2]] == [(1, Reason.NOT_PARSABLE), (2, Reason.CLOCK_AHEAD)]
    expected = {1: "refused_again", 2: "usable", 3: "usable", 4: "counted", 5: "another_message", 10**6: "gone"}
    assert it.outcomes(capsys) == expected
    assert len(it.read()) == 6, "a dry run sends nothing"
    before, _ = it.judged()

    done = {**expected, 2: "replayed", 3: "replayed"}
    assert it.outcomes(capsys, yes=True) == done
    again = it.read(6)
    assert [m.value() for m in again] == [ahead, fixed]
    assert [m.key() for m in again] == [b"k", b"k"]
    assert [dict(m.headers())["trace"] for m in again] == [b"1", b"1"]
    assert [dict(m.headers())[REPLAY_OF] for m in again] == [f"{it.topic}/1/{n}".encode() for n in (2, 3)]
    assert again[1].timestamp()[1] == OLD_MS, "the original time where that will do"
    assert again[0].timestamp()[1] > OLD_MS
    after, dead = it.judged()
    assert after == before + 2
    assert [d.offset for d in dead if d.reason is not Reason.TOO_LATE] == [1, 2]

    second = {**expected, 2: "already_replayed", 3: "already_replayed"}
    assert it.outcomes(capsys, yes=True) == second
    assert it.outcomes(capsys, f"{it.topic}/1/3/0", yes=True) == {3: "already_replayed"}
    assert len(it.read(6)) == 2, "nothing is sent twice"
    assert {row["id"].rpartition("/")[0].rpartition("/")[2] for row in it.run(capsys, "list")} == {
        "1", "2", "3", "4", "5", str(10**6),
    }  # fmt: skip


@pytest.mark.server
def test_letters_are_listed_by_filter_and_shown_without_secrets_and_prompts(
    case: tuple[Case, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    it, client = case
    it.produce(encoded(), encoded(status="x", prompt="walrus", api_key="sk-0123456789abcdef"), b"{", encoded(status=-1))
    it.keep(client)
    assert {row["reason"] for row in it.run(capsys, "list")} == {"wrong_type", "not_parsable", "out_of_range"}
    assert len(it.run(capsys, "list", limit=2)) == 2
    assert [row["offset"] for row in it.run(capsys, "list", reason="not_parsable", topic=it.topic)] == [2]
    assert it.run(capsys, "list", topic="elsewhere") == []
    assert len(it.run(capsys, "list", since="5m")) == 3
    assert it.run(capsys, "list", until="2020-01-01T00:00:00Z") == []
    (shown,) = it.run(capsys, "show", f"{it.topic}/1/1/0")
    assert shown["retained"]
    assert shown["original"].startswith('{"at":1767268800000,"provider":"openai"')
    assert "walrus" not in json.dumps(shown)
    assert "sk-0123" not in json.dumps(shown)
    admin = AdminClient({"bootstrap.servers": it.broker})
    for gone in admin.delete_records([TopicPartition(it.topic, 1, 2)]).values():
        gone.result(20)
    (shown,) = it.run(capsys, "show", f"{it.topic}/1/1")
    assert (shown["retained"], "original" in shown) == (False, False)
    with pytest.raises(TidegaugeError, match="there is no dead letter"):
        dead_letters("show", f"{it.topic}/1/0", config=str(it.config))


@pytest.mark.server
def test_a_replay_that_breaks_off_leaves_nothing_and_can_be_done_again(
    kafka_broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Case(kafka_broker, tmp_path, None)
    it.produce(encoded(), encoded(team="a"))
    it.keep(None, it.letter(0, encoded()), it.letter(1, encoded(team="a")))
    produce, calls = Sender._produce, []

    def cut_off(self: Sender, *arguments: Any) -> None:
        calls.append(arguments)
        produce(self, *arguments)
        if len(calls) == 2:
            raise KafkaException("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Sender, "_produce", cut_off)
        with pytest.raises(KafkaException):
            dead_letters("replay", config=str(it.config), yes=True)
    assert len(it.read()) == 2
    assert it.outcomes(capsys, yes=True) == {0: "replayed", 1: "replayed"}
    assert len(it.read()) == 4


@pytest.mark.server
def test_a_format_that_the_flow_does_not_read_is_only_tried(
    kafka_broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    it = Case(kafka_broker, tmp_path, None)
    it.produce(b"2026-01-01 12:00:00,10,20")
    it.keep(None)
    assert it.outcomes(capsys) == {0: "refused_again"}
    assert it.outcomes(capsys, format="azure-llm") == {0: "usable"}
    with pytest.raises(BadSettings, match=r"kafka\.requests_format"):
        dead_letters("replay", config=str(it.config), format="azure-llm", yes=True)
    assert len(it.read()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "--reason", "nonsense"], "no reason .nonsense."),
        (["list", "--since", "yesterday"], "--since .yesterday. is no time"),
        (["list", "--since", "2026-01-01T00:00:00"], "is no time"),
        (["show", "a/b/c"], ".a/b/c. is no ID"),
        (["show"], "name at least one ID"),
    ],
)
def test_bad_usage_is_said_before_anything_is_asked(arguments: list[str], says: str) -> None:
    with pytest.raises(BadSettings, match=says):
        app()(["dead-letters", *arguments], exit_on_error=False, result_action="return_value")


def test_a_broker_or_database_out_of_reach_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "TIMEOUT_S", 0.5)
    config = tmp_path / "t.yaml"
    for database, says in (("null", "no broker answers"), ("{url: 'http://127.0.0.1:1/x'}", "cannot connect")):
        config.write_text(f"kafka: {{bootstrap_servers: '127.0.0.1:1'}}\nclickhouse: {database}\n")
        with pytest.raises(TidegaugeError, match=says):
            dead_letters("list", config=str(config))
