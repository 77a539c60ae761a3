"""The database away, and a cluster of processes: the same end as without trouble."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.company import Company
from tests.e2e.conftest import Undisturbed
from tests.e2e.live import Live, wait_for
from tests.e2e.oncall import OnCall
from tests.e2e.test_live import assert_same
from tests.servers.cache import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.proxy import FaultProxy

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ClickHouseServer]:
    """A ClickHouse server that the test starts and ends."""
    it = ClickHouseServer(tmp_path / "clickhouse", free_port())
    yield it
    it.stop()


def test_alerts_do_not_wait_for_a_database_that_is_away(
    own_server: ClickHouseServer, undisturbed: Undisturbed, company: Company, kafka_broker: str, tmp_path: Path,
    on_call: OnCall,
) -> None:  # fmt: skip
    it = Live(tmp_path / "away", company, kafka_broker, own_server.url, on_call.url)
    it.start()
    try:
        wait_for("readiness without a database", it.is_ready)
        wait_for("an alert without a database", on_call.received)
        it.kill()  # what was handed over is on disk
        assert list((it.folder / "state" / "process-0" / "spool").glob("*.arrow"))
        it.start()
        wait_for("every alert", lambda: set(on_call.received()) == set(undisturbed.received))
        assert it.metric("tidegauge_clickhouse_rows_total") == 0
        own_server.start()
        wait_for("rows", lambda: it.query("SELECT 1 FROM requests LIMIT 1"))
        own_server.kill()
        time.sleep(0.5)
        own_server.start()
        wait_for("the last window", it.has_closed_everything)
        wait_for("an empty spool", lambda: it.metric("tidegauge_clickhouse_queued_rows") == 0)
        it.stop()
        assert_same(it.tables(), undisturbed.tables)
        # As the process was killed once, one message may have been under way.
        assert sum(on_call.received().values()) <= sum(undisturbed.received.values()) + 1
    finally:
        it.kill()


@pytest.fixture
def proxy(clickhouse_server: str) -> Iterator[FaultProxy]:
    """Between the process and the shared server."""
    host, _, port = clickhouse_server.split("/")[2].rpartition(":")
    with FaultProxy((host, int(port))) as it:
        yield it


@pytest.fixture
def behind_proxy(
    tmp_path: Path, company: Company, kafka_broker: str, clickhouse_server: str, on_call: OnCall, proxy: FaultProxy
) -> Iterator[Callable[..., Live]]:
    """Make an installation that reaches the shared server through the proxy."""
    made: list[Live] = []

    def make(**settings: Any) -> Live:
        it = Live(
            tmp_path / "proxied", company, kafka_broker, f"{proxy.url}/tidegauge", on_call.url,
            ask=clickhouse_server, **settings,
        )  # fmt: skip
        made.append(it)
        return it

    yield make
    for it in made:
        it.kill()
        it.drop()


def test_a_database_that_hangs_and_loses_answers_holds_up_no_alert_and_has_every_row_once(
    behind_proxy: Callable[..., Live], proxy: FaultProxy, undisturbed: Undisturbed, on_call: OnCall
) -> None:
    proxy.half_open()
    it = behind_proxy()
    it.start()
    wait_for("every alert", lambda: set(on_call.received()) == set(undisturbed.received))
    assert it.is_ready()
    assert it.metric("tidegauge_clickhouse_rows_total") == 0
    proxy.heal()
    for n in range(1, 4):
        proxy.drop_after("answer", marker=b"INSERT")
        proxy.wait_until(lambda p, n=n: p.trapped == n, 90.0)  # type: ignore[misc]
    proxy.fall_silent_after(1_000, marker=b"INSERT")
    proxy.wait_until(lambda p: p.trapped == 4, 90.0)
    proxy.heal()
    wait_for("the last window", it.has_closed_everything)
    wait_for("an empty spool", lambda: it.metric("tidegauge_clickhouse_queued_rows") == 0)
    it.stop()
    assert_same(it.tables(), undisturbed.tables)
    assert on_call.received() == undisturbed.received


def test_a_full_spool_holds_the_flow_back_tells_on_call_and_survives_a_kill_and_a_stop(
    behind_proxy: Callable[..., Live], proxy: FaultProxy, undisturbed: Undisturbed, on_call: OnCall
) -> None:
    def told() -> list[tuple[str, str]]:
        stalls = [i for _, _, i in on_call.incidents if "stands still" in i["summary"]]
        return [(i["incident_id"], i["state"]) for i in stalls]

    proxy.refuse()
    it = behind_proxy(clickhouse={"spool_bytes": 300_000})
    it.start()
    wait_for("the flow to wait", lambda: it.metric("tidegauge_clickhouse_blocked") == 1)
    status, words = it.get("/readyz")
    assert (status, "the spool is full" in words) == (503, True), words
    wait_for("on-call to be told", told)
    it.kill()
    it.start()
    wait_for("the flow to wait again", lambda: it.metric("tidegauge_clickhouse_blocked") == 1)
    events = it.metric("tidegauge_events_total")
    assert events < it.company.requests + it.company.samples, "Kafka keeps the rest"
    assert it.metric("tidegauge_clickhouse_spooled_bytes") <= 300_000
    it.stop()  # in time, although nothing can be saved
    it.start()
    proxy.heal()
    wait_for("the last window", it.has_closed_everything)
    wait_for("an empty spool", lambda: it.metric("tidegauge_clickhouse_queued_rows") == 0)
    it.stop()
    assert_same(it.tables(), undisturbed.tables)
    assert set(on_call.received()) == set(undisturbed.received)
    assert [state for _, state in told()].count("open") == 1, "the restart tells no second one"
    assert len({incident_id for incident_id, _ in told()}) == 1


def test_two_processes_come_to_the_same_as_one_also_after_a_crash(
    undisturbed: Undisturbed, live: Callable[..., Live], on_call: OnCall
) -> None:
    it = live("cluster", metrics={"port": 0})
    addresses = [argument for _ in range(2) for argument in ("--address", f"127.0.0.1:{free_port()}")]

    def start() -> None:
        for number in range(2):
            it.start("--process", str(number), *addresses)

    start()
    wait_for("some rows", lambda: it.query("SELECT 1 FROM request_windows LIMIT 1"))
    victim, other = it.processes
    victim.kill()
    assert other.wait(30) == 1, "without the others a process ends, so that all can be started again"
    assert "Start all of them again" in it.log()
    it.kill()
    start()
    wait_for("the last window", it.has_closed_everything)
    it.stop()
    assert_same(it.tables(), undisturbed.tables)
    assert set(on_call.received()) == set(undisturbed.received)
