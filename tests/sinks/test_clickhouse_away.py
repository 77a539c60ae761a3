"""The database away in every way, seen from the writer: rows wait, then land once each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import DeliveryFailed
from sinks.clickhouse import client
from sinks.clickhouse.client import connect, is_temporary
from sinks.clickhouse.migrate import RAW_TABLES, WINDOW_TABLES, migrate
from tests import builders
from tests.servers.cache import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import MAY_READ, MAY_WRITE, OBSERVER, users
from tests.servers.disk import SmallDisk
from tests.servers.proxy import FaultProxy
from tests.sinks.findings import INCIDENT, LETTER, REPORT
from tests.sinks.test_clickhouse_writer import send, stored, wait_until

pytestmark = pytest.mark.server

ROWS = 500
INSERT = b"INSERT"


@pytest.fixture
def proxy(clickhouse_server: str) -> Iterator[FaultProxy]:
    host, _, port = clickhouse_server.split("/")[2].rpartition(":")
    with FaultProxy((host, int(port))) as it:
        yield it


@pytest.fixture
def writer(proxy: FaultProxy, clickhouse_client: Any, writer_for: Callable[..., Any]) -> Any:
    """A writer behind the proxy that has written already, so that its connection stands."""
    it = writer_for(client_factory=lambda: connect(f"{proxy.url}/{clickhouse_client.database}", request_timeout_s=1))
    send(it, ROWS)
    assert it.drain(30)
    return it


def failed(writer: Any, times: int = 1) -> None:
    wait_until(lambda: writer.status()["failures"] >= times and not writer.status()["healthy"], writer)


def assert_landed(writer: Any, client: Any, rows: int) -> None:
    """Every row is there, once, without the help of replacement."""
    assert writer.drain(60), writer.status()
    assert stored(client) == (rows, rows)
    status = writer.status()
    assert status["healthy"]
    assert (status["queued_rows"], status["queued_bytes"], status["spooled_bytes"]) == (0, 0, 0)


SWITCHES: dict[str, Callable[[FaultProxy], None]] = {
    "refusing": FaultProxy.refuse,
    "resetting": FaultProxy.cut,
    "hanging": FaultProxy.half_open,
    "hanging but taking": lambda proxy: proxy.half_open(delivers=True),
}


@pytest.mark.parametrize("how", SWITCHES)
def test_rows_wait_and_land_once(writer: Any, proxy: FaultProxy, clickhouse_client: Any, how: str) -> None:
    SWITCHES[how](proxy)
    for i in range(1, 6):
        send(writer, ROWS, first=i * ROWS)
        writer.checkpoint()
    failed(writer, 2)
    assert writer.status()["queued_rows"] == 5 * ROWS
    assert writer.status()["spooled_bytes"] > 0
    proxy.heal()
    assert_landed(writer, clickhouse_client, 6 * ROWS)


def test_an_answer_lost_after_the_insert_doubles_nothing(
    writer: Any, proxy: FaultProxy, clickhouse_client: Any
) -> None:
    for i in range(1, 4):
        proxy.drop_after("answer", marker=INSERT)
        send(writer, ROWS, first=i * ROWS)
        proxy.wait_until(lambda p, n=i: p.trapped == n)  # type: ignore[misc]
        assert writer.drain(30)
    assert_landed(writer, clickhouse_client, 4 * ROWS)


@pytest.mark.parametrize("after_bytes", [0, 400, 4_000])
def test_a_request_cut_in_its_middle_loses_and_doubles_nothing(
    writer: Any, proxy: FaultProxy, clickhouse_client: Any, after_bytes: int
) -> None:
    proxy.drop_after("request", after_bytes, marker=INSERT)
    send(writer, ROWS, first=ROWS)
    proxy.wait_until(lambda p: p.trapped == 1)
    assert_landed(writer, clickhouse_client, 2 * ROWS)


def test_silence_in_the_middle_of_an_insert_holds_nothing_for_ever(
    writer: Any, proxy: FaultProxy, clickhouse_client: Any
) -> None:
    proxy.fall_silent_after(2_000, marker=INSERT)
    send(writer, ROWS, first=ROWS)
    failed(writer)
    assert "time" in writer.status()["last_error"].lower()
    proxy.heal()
    assert_landed(writer, clickhouse_client, 2 * ROWS)


def test_a_server_slower_than_the_input_gets_everything(writer: Any, proxy: FaultProxy, clickhouse_client: Any) -> None:
    proxy.throttle(100_000)
    for i in range(1, 11):
        send(writer, ROWS, first=i * ROWS)
        writer.checkpoint()
    assert writer.status()["queued_rows"] > 0
    proxy.delay(0.02)
    assert_landed(writer, clickhouse_client, 11 * ROWS)


def test_a_hanging_server_holds_up_no_connection_attempt_for_as_long_as_an_insert(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "HELLO_TIMEOUT_S", 1)
    proxy.half_open()
    with pytest.raises(DeliveryFailed) as caught:
        connect(proxy.url, request_timeout_s=3_600)
    assert is_temporary(caught.value)


def test_memory_stays_bounded_and_order_is_kept_while_the_server_hangs(
    proxy: FaultProxy, clickhouse_client: Any, writer_for: Callable[..., Any]
) -> None:
    proxy.half_open()
    writer = writer_for(
        client_factory=lambda: connect(f"{proxy.url}/{clickhouse_client.database}", request_timeout_s=1),
        memory_bytes=300_000,
        batch_rows=ROWS,
    )
    most = 0
    for i in range(24):
        send(writer, ROWS, first=i * ROWS)
        most = max(most, writer.status()["queued_bytes"])
        if i % 4 == 3:
            writer.checkpoint()
    assert most <= 600_000
    proxy.heal()
    assert_landed(writer, clickhouse_client, 24 * ROWS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", megabytes=48) as it:
        yield it


def test_a_database_whose_disk_is_full_gets_everything_once_there_is_room(
    small_disk: SmallDisk, writer_for: Callable[..., Any]
) -> None:
    server = ClickHouseServer(small_disk.path / "server", free_port())
    server.start()
    try:
        database = connect(server.url)
        migrate(database, ttl_days_raw=30, ttl_days_windows=400)
        writer = writer_for(client_factory=lambda: connect(server.url))
        small_disk.fill(leaving=200_000)
        for i in range(5):
            send(writer, ROWS, first=i * ROWS)
            writer.incidents([INCIDENT])
            writer.checkpoint()
        failed(writer, 2)
        assert "NOT_ENOUGH_SPACE" in writer.status()["last_error"]
        assert writer.status()["refused"] == {}, "no table is to blame"
        migrate(connect(server.url), ttl_days_raw=30, ttl_days_windows=400)  # a start at such a moment succeeds
        small_disk.empty()
        assert_landed(writer, database, 5 * ROWS)
        assert database.command("SELECT count() FROM incidents FINAL") == 1
        writer.close()
        database.close()
    finally:
        server.kill()


def test_a_spool_whose_disk_is_full_holds_the_flow_back_and_says_why(
    small_disk: SmallDisk, proxy: FaultProxy, clickhouse_client: Any, writer_for: Callable[..., Any]
) -> None:
    proxy.refuse()
    writer = writer_for(
        client_factory=lambda: connect(f"{proxy.url}/{clickhouse_client.database}", request_timeout_s=1),
        spool_dir=small_disk.path / "spool",
    )
    small_disk.fill(leaving=60_000)

    def produce() -> None:
        for i in range(10):
            send(writer, ROWS, first=i * ROWS)
            writer.checkpoint()

    producer = threading.Thread(target=produce)
    producer.start()
    wait_until(lambda: writer.status()["blocked"], writer)
    assert "No space left" in writer.status()["blocked_reason"]
    assert not list((small_disk.path / "spool").glob("*.partial"))
    small_disk.empty()
    producer.join(30)
    assert not producer.is_alive(), "room on the disk is enough, the database need not be back"
    assert not writer.status()["blocked"]
    proxy.heal()
    assert_landed(writer, clickhouse_client, 10 * ROWS)
    writer.close()


READ_ONLY = {
    "a profile that only reads": OBSERVER,
    "no right to insert": MAY_READ,
}


@pytest.mark.parametrize("why", READ_ONLY)
def test_a_database_that_only_lets_read_refuses_by_name_and_gets_everything_afterwards(
    tmp_path: Path, writer_for: Callable[..., Any], why: str
) -> None:
    port = free_port()
    server = ClickHouseServer(tmp_path / "server", port, users(MAY_WRITE))
    server.start()
    try:
        database = connect(server.url)
        migrate(database, ttl_days_raw=30, ttl_days_windows=400)
        database.close()
        server.kill()
        server.users_xml = users(READ_ONLY[why])
        server.start()
        writer = writer_for(client_factory=lambda: connect(f"http://writer@127.0.0.1:{port}/tidegauge"))
        for i in range(3):
            send(writer, ROWS, first=i * ROWS)
            writer.checkpoint()
        wait_until(lambda: "requests" in writer.status()["refused"], writer)
        reason = writer.status()["refused"]["requests"]
        assert "Not enough privileges" in reason or "readonly" in reason
        assert writer.status()["queued_rows"] == 3 * ROWS
        server.kill()
        server.users_xml = users(MAY_WRITE)
        server.start()
        database = connect(server.url)
        assert_landed(writer, database, 3 * ROWS)
        writer.close()
        database.close()
    finally:
        server.kill()


def test_a_retry_after_a_crash_of_the_server_is_recognised(tmp_path: Path, writer_for: Callable[..., Any]) -> None:
    server = ClickHouseServer(tmp_path / "server", free_port())
    server.start()
    try:
        with FaultProxy(("127.0.0.1", server.port)) as proxy:
            database = connect(server.url)
            migrate(database, ttl_days_raw=30, ttl_days_windows=400)
            database.close()
            writer = writer_for(client_factory=lambda: connect(f"{proxy.url}/tidegauge", request_timeout_s=1))
            proxy.half_open(delivers=True)  # hello is not answered either, so nothing is inserted yet
            send(writer, ROWS)
            failed(writer)
            proxy.heal()
            proxy.drop_after("answer", marker=INSERT)
            proxy.wait_until(lambda p: p.trapped == 1)  # inserted, and nobody knows
            server.kill()
            server.start()
            database = connect(server.url)
            assert_landed(writer, database, ROWS)
            writer.close()
            database.close()
    finally:
        server.kill()


def test_a_batch_that_the_server_takes_twice_is_read_once_from_every_table(
    clickhouse_client: Any, writer_for: Callable[..., Any]
) -> None:
    tables = [*RAW_TABLES, *WINDOW_TABLES]
    for table in tables:
        clickhouse_client.command(f"SYSTEM STOP MERGES {clickhouse_client.database}.{table}")
        # As when the server has forgotten the token.
        clickhouse_client.command(f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 0")
    writer = writer_for(clickhouse_client)
    for _ in range(2):
        send(writer, ROWS)
        writer.request_windows(builders.request_windows())
        writer.gpu_samples(builders.gpu_columns(ROWS))
        writer.gpu_windows(builders.gpu_windows())
        writer.scores(REPORT, 0.0)
        writer.incidents([INCIDENT])
        writer.dead_letters([LETTER])
        assert writer.drain(30)
    for table in tables:
        taken, read = (clickhouse_client.command(f"SELECT count() FROM {table} {final}") for final in ("", "FINAL"))
        assert taken == 2 * read > 0, table
        clickhouse_client.command(f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 1000")
        clickhouse_client.command(f"SYSTEM START MERGES {clickhouse_client.database}.{table}")
