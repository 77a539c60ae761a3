from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, ProgrammingError

from schemas.errors import BadSettings, DeliveryFailed
from sinks.clickhouse.client import connect
from sinks.clickhouse.migrate import migrate
from tests import builders
from tests.servers.cache import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.sinks.findings import INCIDENT

SECRET = "hunter2-very-secret"


class Gate:
    """A client in front of the embedded engine that can be made slow or refusing."""

    def __init__(self, client: Any) -> None:
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None
        self.only_table = ""
        self.calls: list[tuple[str, str, int]] = []
        self._client = client

    def raw_insert(self, table: str, names: Any, block: bytes, settings: dict[str, Any], fmt: str) -> None:
        self.open.wait(30)
        self.calls.append((table.split("`")[-2], settings["insert_deduplication_token"], len(block)))
        if self.error is not None and table.endswith(f"{self.only_table}`"):
            raise self.error
        self._client.raw_insert(table, names, block, settings=settings, fmt=fmt)

    def close(self) -> None:
        pass


@pytest.fixture
def gate(chdb_client: Any) -> Gate:
    return Gate(chdb_client)


@pytest.fixture
def through(gate: Gate, chdb_client: Any, writer_for: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **options: writer_for(client_factory=lambda: gate, database=chdb_client.database, **options)


def send(writer: Any, n: int, first: int = 0) -> None:
    """Hand over events `first` to `first + n`; the same event is the same row in whatever batch it comes."""
    numbers = np.arange(first, first + n, dtype=np.int64)
    columns = builders.request_columns(
        n,
        event_id=[f"e{i}" for i in numbers],
        offsets=numbers,
        at_ns=builders.NOON_NS + numbers * builders.SECOND_NS,
        **{name: [f"{name}-{i % 3}" for i in numbers] for name in ("provider", "model", "team")},
    )
    writer.requests(columns, builders.costs_for(columns), "v1")


def stored(client: Any, table: str = "requests") -> tuple[int, int]:
    row = client.query(f"SELECT count(), uniqExact(event_id) FROM {table}").first_row
    return int(row[0]), int(row[1])


def wait_until(condition: Callable[[], bool], writer: Any) -> None:
    """Wait for the writer's thread; it notifies at every change."""
    with writer._changed:
        assert writer._changed.wait_for(condition, 20)


def test_the_same_batch_twice_counts_once(database: Any, writer_for: Any) -> None:
    writer = writer_for(database)
    for _ in range(2):
        send(writer, 100)
        assert writer.drain(30)
    assert stored(database) == (100, 100)
    assert writer.status()["inserted_rows"] == {"requests": 200}


def test_rows_sent_again_in_other_batches_count_once_after_replacement(database: Any, writer_for: Any) -> None:
    writer = writer_for(database)
    send(writer, 100)
    assert writer.drain(30)
    send(writer, 60, first=40)
    send(writer, 50, first=100)
    assert writer.drain(30)
    assert stored(database, "requests_final") == (150, 150)


def test_blocks_are_merged_into_large_inserts(gate: Gate, through: Any, chdb_client: Any) -> None:
    writer = through(batch_rows=1_000, max_delay_s=60.0)
    for i in range(30):
        send(writer, 100, first=i * 100)
    assert writer.drain(30)
    assert len(gate.calls) <= 8
    assert stored(chdb_client) == (3_000, 3_000)


def test_small_rows_do_not_wait_behind_large_ones(gate: Gate, through: Any) -> None:
    gate.open.clear()
    writer = through(batch_rows=100)
    for i in range(5):
        send(writer, 100, first=i * 100)
    wait_until(lambda: writer.status()["queued_rows"] == 500, writer)
    writer.incidents([INCIDENT])
    writer.checkpoint()
    gate.open.set()
    assert writer.drain(30)
    assert "incidents" in [table for table, _, _ in gate.calls[:4]]


def test_a_checkpoint_with_nothing_to_do_touches_neither_server_nor_disk(
    gate: Gate, through: Any, tmp_path: Path
) -> None:
    writer = through()
    writer.checkpoint()
    assert gate.calls == []
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["lock"]


def test_a_checkpoint_does_not_wait_for_a_slow_server(gate: Gate, through: Any, chdb_client: Any) -> None:
    gate.open.clear()
    writer = through()
    send(writer, 100)
    writer.checkpoint()  # would hang if it waited
    status = writer.status()
    assert status["spooled_bytes"] > 0
    assert status["queued_rows"] == 100
    gate.open.set()
    assert writer.drain(30)
    assert writer.status()["spooled_bytes"] == 0
    assert stored(chdb_client) == (100, 100)


def test_an_unreachable_server_delays_nothing_and_loses_nothing(gate: Gate, through: Any, chdb_client: Any) -> None:
    gate.error = OperationalError("Error connection refused")
    writer = through()
    for i in range(5):
        send(writer, 100, first=i * 100)
        writer.checkpoint()
    wait_until(lambda: not writer.status()["healthy"], writer)
    assert "connection refused" in writer.status()["last_error"]
    gate.error = None
    assert writer.drain(30)
    assert stored(chdb_client) == (500, 500)
    assert writer.status()["healthy"]


def test_a_failed_insert_is_sent_again_unchanged(gate: Gate, through: Any) -> None:
    gate.error = OperationalError("timed out after the server had it")
    writer = through(max_delay_s=0.0)
    send(writer, 100)
    wait_until(lambda: writer.status()["failures"] >= 2, writer)
    send(writer, 100, first=100)
    gate.error = None
    assert writer.drain(30)
    tokens = [token for _, token, _ in gate.calls]
    assert len(set(tokens[:3])) == 1


def test_a_refused_table_is_shown_and_does_not_hold_back_the_others(gate: Gate, through: Any, chdb_client: Any) -> None:
    gate.error = DatabaseError("Code: 497. DB::Exception: not enough privileges", code=497, name="ACCESS_DENIED")
    gate.only_table = "requests"
    writer = through()
    send(writer, 100)
    wait_until(lambda: "requests" in writer.status()["refused"], writer)
    writer.incidents([INCIDENT])
    wait_until(lambda: writer.status()["inserted_rows"] == {"incidents": 1}, writer)
    status = writer.status()
    assert "not enough privileges" in status["refused"]["requests"]
    assert status["queued_rows"] == 100
    gate.error = None
    assert writer.drain(60)
    assert stored(chdb_client) == (100, 100)
    assert writer.status()["refused"] == {}


def test_a_refusal_is_tried_again_over_a_new_connection(
    gate: Gate, writer_for: Callable[..., Any], chdb_client: Any
) -> None:
    made = []

    def connecting() -> Gate:
        made.append(gate)
        return gate

    gate.error = ProgrammingError("Setting async_insert is readonly")  # which the driver knows from connecting
    writer = writer_for(client_factory=connecting, database=chdb_client.database)
    send(writer, 100)
    wait_until(lambda: "requests" in writer.status()["refused"], writer)
    gate.error = None
    assert writer.drain(30)
    assert len(made) >= 2


def test_a_limit_lowered_between_starts_holds_new_rows_back_and_loses_none(
    gate: Gate, through: Any, chdb_client: Any
) -> None:
    gate.error = OperationalError("down")
    first = through()
    for i in range(5):
        send(first, 200, first=i * 200)
        first.checkpoint()
    spooled = first.status()["spooled_bytes"]
    first.close()
    second = through(spool_bytes=spooled // 4)
    assert second.status()["spooled_bytes"] == spooled
    sending = threading.Thread(target=lambda: (send(second, 200, first=1_000), second.checkpoint()))
    sending.start()
    wait_until(lambda: second.status()["blocked"], second)
    assert second.status()["spooled_bytes"] == spooled
    gate.error = None
    sending.join(30)
    assert second.drain(30)
    assert stored(chdb_client) == (1_200, 1_200)


def test_waiting_for_the_same_reason_is_logged_once(gate: Gate, through: Any, capsys: Any) -> None:
    gate.error = OperationalError("down")
    writer = through(spool_bytes=1)

    def produce() -> None:
        for i in range(8):
            send(writer, 200, first=i * 200)
            writer.checkpoint()

    producer = threading.Thread(target=produce)
    producer.start()
    wait_until(lambda: writer.status()["blocked"], writer)
    gate.error = None
    producer.join(30)
    assert writer.drain(30)
    assert capsys.readouterr().out.count("the flow waits, because the spool is full") == 1


def test_a_missing_table_is_refused_until_it_is_there(chdb_client: Any, writer_for: Any) -> None:
    chdb_client.command("RENAME TABLE requests TO away")
    writer = writer_for(chdb_client)
    send(writer, 10)
    wait_until(lambda: "requests" in writer.status()["refused"], writer)
    chdb_client.command("RENAME TABLE away TO requests")
    assert writer.drain(30)
    assert stored(chdb_client) == (10, 10)


def test_a_bad_batch_does_not_hold_back_the_good_ones_of_its_table(
    gate: Gate, through: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = through(batch_rows=10, max_delay_s=0.0)
    gate.open.clear()
    send(writer, 10)
    wait_until(lambda: writer.status()["queued_rows"] == 10 and bool(writer._queue.batches()), writer)
    poisoned = writer._queue.batches()[0].digest
    accept = gate._client.raw_insert

    class Picky:
        def raw_insert(self, *args: Any, settings: dict[str, Any], **kwargs: Any) -> None:
            if settings["insert_deduplication_token"] == poisoned:
                raise DatabaseError("Code: 53. DB::Exception: type mismatch", code=53, name="TYPE_MISMATCH")
            accept(*args, settings=settings, **kwargs)

    monkeypatch.setattr(gate, "_client", Picky())
    gate.open.set()
    for i in range(1, 6):
        send(writer, 10, first=i * 10)
    wait_until(lambda: writer.status()["inserted_rows"] == {"requests": 50}, writer)
    assert writer.status()["queued_rows"] == 10


def test_memory_beyond_its_limit_goes_to_disk(gate: Gate, through: Any, chdb_client: Any) -> None:
    gate.open.clear()
    writer = through(memory_bytes=200_000, batch_rows=500)
    for i in range(20):
        send(writer, 500, first=i * 500)
    status = writer.status()
    assert status["queued_bytes"] <= 400_000
    assert status["spooled_bytes"] > 0
    gate.open.set()
    assert writer.drain(60)
    assert stored(chdb_client) == (10_000, 10_000)


def test_a_full_spool_holds_producers_back_until_there_is_room(gate: Gate, through: Any, chdb_client: Any) -> None:
    gate.error = OperationalError("down")
    writer = through(memory_bytes=100_000, spool_bytes=100_000, batch_rows=200)
    sent = 0

    def produce() -> None:
        nonlocal sent
        for i in range(30):
            send(writer, 200, first=i * 200)
            sent += 1

    producer = threading.Thread(target=produce)
    producer.start()
    wait_until(lambda: writer.status()["blocked"], writer)
    status = writer.status()
    assert status["blocked_reason"] == "the spool is full"
    assert status["spooled_bytes"] <= 100_000
    assert sent < 30
    gate.error = None
    producer.join(60)
    assert sent == 30
    assert writer.drain(60)
    assert stored(chdb_client) == (6_000, 6_000)
    assert not writer.status()["blocked"]


def test_closing_frees_a_producer_that_waits(gate: Gate, through: Any) -> None:
    gate.error = OperationalError("down")
    writer = through(memory_bytes=1_000, spool_bytes=1_000)
    raised = []

    def produce() -> None:
        try:
            send(writer, 200)
        except DeliveryFailed as error:
            raised.append(error)

    producer = threading.Thread(target=produce)
    producer.start()
    wait_until(lambda: writer.status()["blocked"], writer)
    writer.close()
    producer.join(20)
    assert len(raised) == 1


def test_the_spool_survives_a_restart_of_the_process(gate: Gate, through: Any, chdb_client: Any) -> None:
    gate.error = OperationalError("down")
    first = through()
    send(first, 100)
    first.checkpoint()
    send(first, 100, first=100)  # accepted, not yet at a checkpoint: `close` keeps it too
    first.close()
    gate.error = None
    second = through()
    assert second.drain(30)
    assert stored(chdb_client) == (200, 200)


def test_batches_left_in_the_spool_are_loaded_in_order(gate: Gate, through: Any) -> None:
    gate.error = OperationalError("down")
    first = through(batch_rows=10)
    for i in range(5):
        send(first, 10, first=i * 10)
        first.checkpoint()
    first.close()
    names = sorted(path.name for path in first._spool._directory.glob("*.arrow"))
    gate.error = None
    gate.calls.clear()
    assert through(batch_rows=10).drain(30)
    assert [token for _, token, _ in gate.calls] == [name.split("-")[-1].removesuffix(".arrow") for name in names]


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_a_damaged_spool_file_is_set_aside_and_counted(gate: Gate, through: Any, chdb_client: Any, damage: str) -> None:
    gate.error = OperationalError("down")
    first = through(batch_rows=10)
    for i in range(3):
        send(first, 10, first=i * 10)
        first.checkpoint()
    first.close()
    victim = sorted(first._spool._directory.glob("*.arrow"))[1]
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) // 2] if damage == "truncated" else content[:-9] + b"x" + content[-8:])
    gate.error = None
    second = through()
    assert second.drain(30)
    assert second.status()["broken_files"] == 1
    assert second.status()["spooled_bytes"] == 0
    assert stored(chdb_client) == (20, 20)
    assert victim.with_name(victim.name + ".broken").exists()


def test_a_file_that_was_not_finished_does_not_count(gate: Gate, through: Any, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    partial = tmp_path / "spool" / f"{0:012d}-requests-1-1-{'0' * 32}.partial"
    partial.write_bytes(b"half")
    writer = through()
    assert not partial.exists()
    assert (writer.status()["queued_rows"], writer.status()["broken_files"]) == (0, 0)


def test_two_writers_cannot_share_a_spool(through: Any) -> None:
    through()
    with pytest.raises(BadSettings, match="in use"):
        through()


def test_a_closed_writer_takes_nothing(through: Any) -> None:
    writer = through()
    writer.close()
    writer.close()
    with pytest.raises(DeliveryFailed, match="closed"):
        send(writer, 1)


def test_status_and_refusals_hold_no_secret(gate: Gate, through: Any) -> None:
    gate.error = OperationalError(f"Error at http://user:{SECRET}@host password={SECRET}")
    writer = through()
    send(writer, 1)
    wait_until(lambda: writer.status()["failures"] > 0, writer)
    assert SECRET not in repr(writer.status())


@pytest.mark.server
def test_a_server_killed_on_the_way_has_every_row_once_afterwards(tmp_path: Path, writer_for: Any) -> None:
    server = ClickHouseServer(tmp_path / "server", free_port())
    server.start()
    try:
        url = server.url.replace("/tidegauge", "/another")
        client = connect(url)
        migrate(client, ttl_days_raw=30, ttl_days_windows=400)
        writer = writer_for(client_factory=lambda: connect(url), batch_rows=500)
        for i in range(10):
            send(writer, 200, first=i * 200)
            if i % 3 == 2:
                writer.checkpoint()
        server.kill()
        for i in range(10, 20):
            send(writer, 200, first=i * 200)
            writer.checkpoint()
        wait_until(lambda: writer.status()["failures"] > 0, writer)
        server.start()
        assert writer.drain(60)
        client.close()
        client = connect(url)
        assert stored(client, "requests_final") == (4_000, 4_000)
        assert client.command("SELECT count() FROM requests") == 4_000
        client.close()
    finally:
        writer.close()
        server.kill()


def test_rows_of_a_checkpoint_survive_the_kill_of_the_process(
    tmp_path: Path, chdb_client: Any, writer_for: Any
) -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from sinks.clickhouse.client import connect
from sinks.clickhouse.writer import Writer
from tests import builders

writer = Writer(
    lambda: connect("http://127.0.0.1:{free_port()}/db"), spool_dir=Path({str(tmp_path / "spool")!r}), spool_bytes=10**8
)
columns = builders.request_columns(100)
writer.requests(columns, builders.costs_for(columns), "v1")
writer.checkpoint()
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    writer = writer_for(chdb_client)
    assert writer.drain(30)
    assert stored(chdb_client) == (100, 100)
