"""A stop before the process has begun its work: neighbours that never answer do not hold it up."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.demo.broker import EmbeddedBroker
from tests.conftest import ROOT
from tests.e2e.live import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def hanging() -> Iterator[socket.socket]:
    """Takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as it:
        yield it


def begin(folder: Path, kafka: str, clickhouse: dict[str, Any] | None) -> tuple[subprocess.Popen[bytes], Path]:
    config, log = folder / "t.yaml", folder / "log"
    settings = {
        "state_dir": str(folder / "state"),
        "kafka": {"bootstrap_servers": kafka},
        "clickhouse": clickhouse,
        "metrics": {"enabled": False},
    }
    config.write_text(yaml.safe_dump(settings))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", "run", "--config", str(config)],
            cwd=ROOT, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    return process, log


@pytest.mark.parametrize("who", ["kafka", "clickhouse"])
def test_a_neighbour_that_never_answers_does_not_hold_up_a_stop(
    who: str, hanging: socket.socket, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{hanging.getsockname()[1]}"
    with ExitStack() as stack:
        if who == "kafka":
            process, log = begin(tmp_path, address, None)
        else:
            broker = EmbeddedBroker()
            stack.callback(broker.close)
            broker.create("ai.requests", "ai.gpus", "ai.incidents", "ai.dead-letters")
            process, log = begin(tmp_path, broker.address, {"url": f"http://{address}/x"})
        try:
            hanging.settimeout(60)
            stack.enter_context(hanging.accept()[0])  # now it waits for us
            assert process.poll() is None
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
            assert time.monotonic() - begun <= 10.0, "SIGTERM promises 10 s"
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)


def test_a_second_start_is_refused_before_anything_is_touched(hanging: socket.socket, tmp_path: Path) -> None:
    first, log = begin(tmp_path, f"127.0.0.1:{hanging.getsockname()[1]}", None)
    try:
        lock = tmp_path / "state" / "process-0.lock"
        wait_for("the lock", lambda: lock.exists() and lock.read_text() == str(first.pid))
        second = subprocess.run(
            [sys.executable, "-m", "flows", "run", "--config", str(tmp_path / "t.yaml")],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert second.returncode == 2
        assert f"is in use by process {first.pid}" in second.stderr
        assert first.poll() is None, log.read_text()
    finally:
        first.kill()
        first.wait(10)
