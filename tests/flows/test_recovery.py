"""Crash and resume of the whole flow over the embedded broker: the same windows, requests and incidents as without."""

from __future__ import annotations

import os
import pickle
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bytewax.inputs import AbortExecution

from flows.demo.broker import EmbeddedBroker
from flows.outputs import Outputs
from flows.recovery_store import PART
from flows.runtime import Runtime, execute
from flows.settings import Incidents, Kafka, Metrics, Settings, Windows
from flows.simulate import planned_incidents, simulate
from flows.sources.kafka import KafkaSource
from flows.sources.kafka_topics import Topic, list_partitions
from flows.steps import Closed, Priced, PricedGpus
from flows.window_lines import lines
from schemas.formats import get_format
from schemas.incident import Incident

START = datetime(2026, 6, 1, 9, tzinfo=UTC)
MINUTES = 16


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    """Holds a simulated company's events."""
    from confluent_kafka import Producer

    it = EmbeddedBroker()
    it.create("requests", "gpus")
    producer = Producer({"bootstrap.servers": it.address, "log_level": 0})
    planned = planned_incidents("default", minutes=MINUTES, seed=7, start=START)
    for minute in simulate(minutes=MINUTES, seed=7, rate=4.0, start=START, incidents=planned):
        for i, (value, key) in enumerate(zip(minute.requests, minute.request_keys, strict=True)):
            producer.produce("requests", value[:30] if i == 5 else value, key)
        for value, key in zip(minute.gpus, minute.gpu_keys, strict=True):
            producer.produce("gpus", value, key)
    assert producer.flush(30) == 0
    yield it
    it.close()


class Crash(Exception):
    """Stands for the end of the process."""


class Record:
    """What the outputs were handed, as tables that replace by identity. What no checkpoint has covered is not kept.

    Parameters
    ----------
    crash_at
        Which checkpoint that has something to keep does not come back.
    """

    def __init__(self, kept: dict[Any, Any], crash_at: int | None = None) -> None:
        self.kept = kept
        self.fresh: dict[Any, Any] = {}
        self.checkpoints = 0
        self.crash_at = crash_at

    def outputs(self, runtime: Runtime) -> Outputs:
        out = runtime.outputs()
        out.requests.append(self._requests)
        out.gpus.append(self._gpus)
        out.closed.append(self._closed)
        out.incidents.append(self._incidents)
        out.dead.append(
            lambda letters: [self._put(("dead", x.topic, x.partition, x.offset), x.reason) for x in letters]
        )
        out.checkpoint = self._checkpoint
        return out

    def _put(self, key: Any, value: Any) -> None:
        assert self.kept.get(key, value) == value, f"{key} came out differently"
        self.fresh[key] = value

    def _checkpoint(self) -> None:
        if not self.fresh:
            return
        self.checkpoints += 1
        if self.checkpoints == self.crash_at:
            raise Crash
        self.kept.update(self.fresh)
        self.fresh.clear()

    def _requests(self, values: Sequence[Priced]) -> None:
        for p in values:
            if p.item.batch is not None and p.costs is not None:
                c = p.item.batch.columns
                rows = zip(
                    c.offsets.tolist(), c.at_ns.tolist(), p.costs.total_pico.tolist(), c.lateness.tolist(), strict=True
                )
                for offset, *rest in rows:
                    self._put(("request", p.item.partition, offset), rest)

    def _gpus(self, values: Sequence[PricedGpus]) -> None:
        for p in values:
            if p.columns is not None:
                for offset, at in zip(p.columns.offsets.tolist(), p.columns.at_ns.tolist(), strict=True):
                    self._put(("gpu", p.item.partition, offset), at)

    def _closed(self, values: Sequence[Closed]) -> None:
        for c in values:
            for w in (*c.requests, *c.gpus):
                self._put((type(w).__name__, c.shard, w.start_ns, w.version), list(lines(w)))

    def _incidents(self, values: Sequence[Incident]) -> None:
        for i in values:
            self._put(("incident", i.incident_id, i.revision), msgspec.json.encode(i))


class Aborting(KafkaSource):
    """Ends the flow abruptly at the nth block."""

    left: int | None = None

    def build_part(self, step_id: str, for_part: str, resume_state: Any | None) -> Any:
        part = super().build_part(step_id, for_part, resume_state)
        read = part.next_batch

        def next_batch() -> Any:
            items = read()
            if items and self.left is not None:
                self.left -= 1
                if self.left <= 0:
                    raise AbortExecution
            return items

        part.next_batch = next_batch  # type: ignore[method-assign]
        return part


def run(
    broker: EmbeddedBroker,
    state: Path,
    record: Record,
    *,
    abort_after: int | None = None,
    workers: int = 1,
    stopping: Callable[[], bool] = lambda: False,
    shards: int = 3,
) -> None:
    """One start of the process, until the topics' end or the abort."""
    settings = Settings(
        state_dir=str(state),
        epoch_s=0.02,
        kafka=Kafka(bootstrap_servers=broker.address, options={"log_level": 0}),
        windows=Windows(shards=shards, idle_timeout_s=3_600.0),
        incidents=Incidents(cold_start_s=300.0),
        clickhouse=None,
        metrics=Metrics(enabled=False),
    )
    options = {"bootstrap.servers": broker.address, "log_level": 0}
    with Runtime(settings, notify=False) as runtime:
        sources = []
        for topic, name in (("requests", "request"), ("gpus", "gpu")):
            source = Aborting(
                Topic(topic, tuple(list_partitions(options, topic))),
                format=get_format(name),
                options=options,
                make=runtime.parts.partition,
                start="earliest",
                block_messages=200,
                idle_timeout_s=3_600.0,
                stop_at_end=lambda: True,
                stopping=stopping,
                wall_ns=lambda: None,
            )
            sources.append(source)
        sources[0].left = abort_after
        execute(runtime, sources[0], sources[1], record.outputs(runtime), workers=workers, recover=True)
    record._checkpoint()


@pytest.fixture(scope="module")
def undisturbed(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    kept: dict[Any, Any] = {}
    run(broker, tmp_path_factory.mktemp("undisturbed"), Record(kept))
    kinds = [key[0] for key in kept]
    assert kinds.count("request") > 3_000
    assert kinds.count("gpu") > 3_000
    assert kinds.count("incident") >= 2
    assert kinds.count("dead") >= MINUTES
    return kept


def _tries(broker: EmbeddedBroker, state: Path, kept: dict[Any, Any], **options: Any) -> Record:
    record = Record(kept, options.pop("crash_at", None))
    try:
        run(broker, state, record, **options)
    except BaseException as problem:  # the engine wraps what a step raises, a panic included
        if isinstance(problem, KeyboardInterrupt) or "Crash" not in _chain(problem):
            raise
    return record


def _chain(problem: BaseException | None) -> str:
    out = ""
    while problem is not None:
        out += repr(problem)
        problem = problem.__cause__ or problem.__context__
    return out


@pytest.mark.parametrize("seed", range(2))
def test_an_abort_at_any_block_changes_nothing(
    seed: int, broker: EmbeddedBroker, undisturbed: dict[Any, Any], tmp_path: Path
) -> None:
    moments = random.Random(seed)
    kept: dict[Any, Any] = {}
    for _ in range(3):
        # What was handed over after the last checkpoint is lost, as with a crash.
        _tries(broker, tmp_path, kept, abort_after=moments.randint(1, 12))
    assert kept.keys() < undisturbed.keys()
    run(broker, tmp_path, Record(kept))
    assert kept == undisturbed


@pytest.mark.parametrize("crash_at", [1, 4, 9])
def test_rows_handed_over_but_not_made_durable_come_again(
    crash_at: int, broker: EmbeddedBroker, undisturbed: dict[Any, Any], tmp_path: Path
) -> None:
    kept: dict[Any, Any] = {}
    record = _tries(broker, tmp_path, kept, crash_at=crash_at)
    assert record.checkpoints == crash_at
    assert record.fresh, "nothing was at stake"
    assert kept.keys() < undisturbed.keys()
    run(broker, tmp_path, Record(kept))
    assert kept == undisturbed


def test_two_workers_resume_to_the_same(broker: EmbeddedBroker, undisturbed: dict[Any, Any], tmp_path: Path) -> None:
    kept: dict[Any, Any] = {}
    _tries(broker, tmp_path, kept, workers=2, crash_at=6)
    run(broker, tmp_path, Record(kept), workers=2)
    assert kept == undisturbed


def test_a_stop_and_a_start_change_nothing_and_repeat_nothing(
    broker: EmbeddedBroker, undisturbed: dict[Any, Any], tmp_path: Path
) -> None:
    first: dict[Any, Any] = {}
    record = Record(first)
    run(broker, tmp_path, record, stopping=lambda: len(record.kept) > 1_500)
    second: dict[Any, Any] = {}
    run(broker, tmp_path, Record(second))
    assert len(first) > 1_500
    assert not first.keys() & second.keys()
    assert {**first, **second} == undisturbed


@pytest.mark.parametrize("shards", [2, 5])
def test_another_number_of_shards_keeps_positions_and_starts_windows_cold(
    shards: int, broker: EmbeddedBroker, undisturbed: dict[Any, Any], tmp_path: Path
) -> None:
    first: dict[Any, Any] = {}
    record = Record(first)
    run(broker, tmp_path, record, stopping=lambda: len(record.kept) > 1_500)
    second: dict[Any, Any] = {}
    run(broker, tmp_path, LooseRecord(second), shards=shards)
    events = {key for key in undisturbed if key[0] in ("request", "gpu", "dead")}
    assert events == {key for key in (*first, *second) if key[0] in ("request", "gpu", "dead")}
    assert not first.keys() & second.keys() & events
    assert any(key[0] == "RequestWindows" for key in second)
    assert {key[1] for key in second if key[0] == "RequestWindows"} <= {str(i) for i in range(shards)}


STEPS = ("windows", "detect", "gpu_windows", "detect_gpus", "judge", "requests", "gpus")


@pytest.mark.parametrize("step", STEPS)
def test_state_that_cannot_be_read_is_a_cold_start_of_that_step_alone(
    step: str, broker: EmbeddedBroker, undisturbed: dict[Any, Any], tmp_path: Path, capsys: Any
) -> None:
    kept: dict[Any, Any] = {}
    _tries(broker, tmp_path, kept, abort_after=12)
    spoiled = _spoil(tmp_path / "recovery" / PART, step)
    assert spoiled
    capsys.readouterr()
    run(broker, tmp_path, LooseRecord(kept))
    said = capsys.readouterr()
    assert (said.out + said.err).count("cold start") >= spoiled
    # Whatever was forgotten, no event is missing.
    events = {key for key in undisturbed if key[0] in ("request", "gpu", "dead")}
    assert events <= kept.keys()


class LooseRecord(Record):
    """Rows may differ from those of before: windows that were open are forgotten."""

    def _put(self, key: Any, value: Any) -> None:
        self.fresh[key] = value


def _spoil(store: Path, step: str) -> int:
    """Cut the bytes of a step's saved states in half; returns how many there were."""
    db = sqlite3.connect(store)
    rows = db.execute(
        "SELECT step_id, state_key, snap_epoch, ser_change FROM snaps WHERE step_id IN (?, ?)",
        (f"tidegauge.{step}", f"tidegauge.{step}_3x10s"),
    ).fetchall()
    for step_id, key, epoch, change in rows:
        state = pickle.loads(change)
        cut = (state[0], state[1][: len(state[1]) // 2]) if isinstance(state, tuple) else state[: len(state) // 2]
        db.execute(
            "UPDATE snaps SET ser_change = ? WHERE step_id = ? AND state_key = ? AND snap_epoch = ?",
            (pickle.dumps(cut), step_id, key, epoch),
        )
    db.commit()
    db.close()
    return len({key for _, key, _, _ in rows})


@pytest.mark.parametrize("how", ["truncated", "foreign", "unfinished", "forged", "damaged record"])
def test_a_store_that_cannot_be_read_is_a_cold_start_from_the_beginning(
    how: str, broker: EmbeddedBroker, undisturbed: dict[Any, Any], tmp_path: Path, capsys: Any
) -> None:
    kept: dict[Any, Any] = {}
    _tries(broker, tmp_path, kept, abort_after=6)
    store = tmp_path / "recovery" / PART
    if how == "truncated":
        store.write_bytes(store.read_bytes()[:5_000])
    elif how == "foreign":
        store.write_bytes(b"not a database" * 100)
    elif how == "forged":
        _replace_a_record(store, pickle.dumps(Intruder(tmp_path / "intruder")))
    elif how == "damaged record":
        _replace_a_record(store, pickle.dumps((17, b"..."))[:-3])
    else:
        store.unlink()
        sqlite3.connect(store).close()
        store.touch()
    for suffix in ("-wal", "-shm"):
        Path(f"{store}{suffix}").unlink(missing_ok=True)
    capsys.readouterr()
    run(broker, tmp_path, Record(kept))
    said = capsys.readouterr()
    assert "recovery store" in said.out + said.err
    assert kept == undisturbed
    assert not (tmp_path / "intruder").exists(), "what was in the store has run"


class Intruder:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def _replace_a_record(store: Path, content: bytes) -> None:
    db = sqlite3.connect(store)
    changed = db.execute("UPDATE snaps SET ser_change = ? WHERE step_id = 'tidegauge.requests'", (content,)).rowcount
    db.commit()
    db.close()
    assert changed
