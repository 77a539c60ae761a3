"""Signals: a stop is asked for once, bounded in time, and a second signal ends the process at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT

STUCK = """
import sys, time
from flows.logs import set_up
from flows.stop import on_signal
set_up(sys.stderr)
with on_signal({grace_s}) as stop:
    print("up", flush=True)
    while not ({polite} and stop.is_set()):
        time.sleep(0.01)
print("left", flush=True)
"""


@pytest.fixture
def start() -> Iterator[Any]:
    """Start a process that uses `on_signal`; with `polite` it looks at the event."""
    processes = []

    def make(*, grace_s: float, polite: bool) -> subprocess.Popen[str]:
        it = subprocess.Popen(
            [sys.executable, "-c", STUCK.format(grace_s=grace_s, polite=polite)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(it)
        assert it.stdout is not None
        assert it.stdout.readline() == "up\n"
        return it

    yield make
    for it in processes:
        it.kill()
        it.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_process_end_by_itself(start: Any, number: signal.Signals) -> None:
    it = start(grace_s=60.0, polite=True)
    it.send_signal(number)
    out, said = it.communicate(timeout=20)
    assert (it.returncode, out) == (0, "left\n")
    assert "stopping" in said


def test_a_process_that_does_not_end_by_itself_is_ended_with_code_0(start: Any) -> None:
    it = start(grace_s=0.2, polite=False)
    it.send_signal(signal.SIGTERM)
    out, said = it.communicate(timeout=20)
    assert (it.returncode, out) == (0, "")
    assert "took too long" in said


def test_a_second_signal_ends_the_process_at_once(start: Any) -> None:
    it = start(grace_s=60.0, polite=False)
    it.send_signal(signal.SIGTERM)
    assert it.stderr is not None
    assert "stopping" in it.stderr.readline()
    it.send_signal(signal.SIGTERM)
    assert it.wait(20) == 128 + signal.SIGTERM


BLOCKED = """
import ctypes, sys
from flows.logs import set_up
from flows.stop import on_signal
set_up(sys.stderr)
with on_signal({grace_s}):
    print("up", flush=True)
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)  # no signal ends that
"""


def test_a_main_thread_without_python_does_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch, start: Any) -> None:
    monkeypatch.setattr("tests.e2e.test_stop.STUCK", BLOCKED)
    it = start(grace_s=0.2, polite=False)
    it.send_signal(signal.SIGTERM)
    out, said = it.communicate(timeout=20)
    assert (it.returncode, out) == (0, "")
    assert "stopping" in said
    assert "took too long" in said
