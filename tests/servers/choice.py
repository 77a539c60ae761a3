"""Where a shared test server comes from; the one place that decides.

In this order: an address given in the environment, Docker if an engine answers, a process of our own.
`TIDEGAUGE_TEST_SERVERS=local` or `=docker` leaves no choice between the last two. Tests that break a server on purpose
always start one of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.servers import docker
from tests.servers.cache import free_port, missing

FORCED = "TIDEGAUGE_TEST_SERVERS"
GIVEN = {
    "kafka": "TIDEGAUGE_TEST_KAFKA",
    "clickhouse": "TIDEGAUGE_TEST_CLICKHOUSE",
    "alertmanager": "TIDEGAUGE_TEST_ALERTMANAGER",
}
"""Variables with addresses: bootstrap servers, `http://USER@HOST:PORT/DATABASE`, `http://HOST:PORT`."""

Way = Literal["given", "docker", "local"]


def way(server: str) -> Way:
    """How a server is had."""
    forced = os.environ.get(FORCED, "")
    if forced not in ("", "docker", "local"):
        raise ValueError(f"{FORCED}={forced}: expected docker or local")
    if os.environ.get(GIVEN[server]):
        return "given"
    if forced == "local":
        return "local"
    return "docker" if forced or docker.engine_answers() else "local"


@contextmanager
def served(server: str, folder: Path) -> Iterator[str]:
    """Have a server for the time of the block; yields its address.

    Parameters
    ----------
    server
        Key of `GIVEN`.
    folder
        For the data and the log of a process of our own.
    """
    chosen = way(server)
    if chosen == "given":
        yield os.environ[GIVEN[server]]
        return
    if chosen == "docker":
        try:
            container = docker.start(server)
        except docker.DockerFailed as failure:
            if os.environ.get(FORCED):
                missing(f"{server}: {failure}")
        else:
            try:
                yield container.address
            finally:
                container.remove()
            return
    with _process(server, folder) as address:
        yield address


@contextmanager
def _process(server: str, folder: Path) -> Iterator[str]:
    """A process of our own."""
    if server == "kafka":
        from tests.servers.kafka import KafkaBroker

        broker = KafkaBroker(folder, free_port(), free_port())
        broker.start()
        try:
            yield broker.bootstrap_servers
        finally:
            broker.stop()
        return
    from tests.servers.alertmanager import AlertmanagerServer
    from tests.servers.clickhouse import ClickHouseServer

    it = {"clickhouse": ClickHouseServer, "alertmanager": AlertmanagerServer}[server](folder, free_port())
    it.start()
    try:
        yield it.url
    finally:
        it.stop()
