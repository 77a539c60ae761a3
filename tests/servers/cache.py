"""Where downloaded servers are kept, and what happens where they are not to be had."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache"
REQUIRED = "TIDEGAUGE_REQUIRE_SERVERS"


def missing(what: str) -> NoReturn:
    """Skip the test, saying what is missing; fail where the environment demands servers."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{what} ({REQUIRED}=1)", pytrace=False)
    pytest.skip(what)


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """Hold a lock, so that parallel test processes download once. Yields the cache directory."""
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield CACHE


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
