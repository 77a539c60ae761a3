"""`tidegauge run` refuses to start where it cannot work, in one clear line and with exit code 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.lock import hold
from tests.commands.command_line import tidegauge
from tests.servers.cache import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import MAY_READ, users
from tests.servers.proxy import FaultProxy

SETTINGS = """
state_dir: {state}
kafka: {{bootstrap_servers: "127.0.0.1:1"}}
clickhouse: null
metrics: {{enabled: false}}
"""


def test_a_second_start_on_the_same_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tidegauge.yaml").write_text(SETTINGS.format(state=tmp_path / "state"))
    with hold(str(tmp_path / "state"), 0):
        done = tidegauge("run", "--config", tmp_path / "tidegauge.yaml")
    assert done.returncode == 2
    assert f"run: {tmp_path / 'state'} is in use by process {os.getpid()}".encode() in done.stderr
    assert b"state_dir" in done.stderr


def test_a_broker_out_of_reach_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "tidegauge.yaml").write_text(SETTINGS.format(state=tmp_path / "state"))
    done = tidegauge("run", "--config", tmp_path / "tidegauge.yaml")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"kafka: no broker answers at 127.0.0.1:1")
    assert b"kafka.bootstrap_servers" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_bad_settings_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "tidegauge.yaml").write_text("kafka: {topic: x}\n")
    done = tidegauge("run", "--config", tmp_path / "tidegauge.yaml")
    assert done.returncode == 2
    assert b"unknown field `topic`" in done.stderr
    assert not (tmp_path / ".tidegauge").exists()


@pytest.mark.server
def test_a_database_that_refuses_the_tables_is_one_clear_line_and_one_that_hangs_does_not_hold_up_the_start(
    tmp_path: Path,
) -> None:
    server = ClickHouseServer(tmp_path / "server", free_port(), users(MAY_READ))
    server.start()
    try:
        with FaultProxy(("127.0.0.1", server.port)) as proxy:
            url = f"http://writer@{proxy.address}/tidegauge"
            settings = SETTINGS.format(state=tmp_path / "state").replace("null", f"{{url: '{url}'}}")
            (tmp_path / "tidegauge.yaml").write_text(settings)
            refused = tidegauge("run", "--config", tmp_path / "tidegauge.yaml")
            assert refused.returncode == 1
            assert refused.stderr.startswith(b"clickhouse: the tables cannot be brought up to date")
            assert b"tidegauge_migrator" in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
            proxy.half_open()
            hanging = tidegauge("run", "--config", tmp_path / "tidegauge.yaml")
            assert hanging.returncode == 2
            assert b"rows wait for it" in hanging.stderr
            assert b"kafka: no broker answers" in hanging.stderr, "it went on to the next"
    finally:
        server.kill()
