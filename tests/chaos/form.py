"""How long and how hard: the form of `make chaos`, and the shortened one of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.report import Row


@dataclass(frozen=True)
class Form:
    """Length of every phase, and the load.

    Parameters
    ----------
    before_s, during_s, after_s
        Seconds without, with, and again without the fault.
    outage_s
        Length of the one long outage of the database.
    rate_per_s
        Requests per second of live traffic.
    kills
        How often a process is killed.
    minutes, history_rate
        Length and mean rate of the simulated past that is read while processes are killed.
    overload_factor, overload_s
        Input as a multiple of what the flow can do, and for how long.
    """

    before_s: float
    during_s: float
    after_s: float
    outage_s: float
    rate_per_s: float
    kills: int
    minutes: int
    history_rate: float
    overload_factor: float
    overload_s: float


SHORT = Form(
    before_s=8, during_s=6, after_s=8, outage_s=8, rate_per_s=500, kills=5, minutes=40, history_rate=8.0,
    overload_factor=3.0, overload_s=12,
)  # fmt: skip
LONG = Form(
    before_s=20, during_s=40, after_s=20, outage_s=600, rate_per_s=4_000, kills=50, minutes=430, history_rate=41.0,
    overload_factor=3.0, overload_s=300,
)  # fmt: skip


@dataclass
class Servers:
    """Real servers, and where a scenario may write.

    Parameters
    ----------
    kafka
        Bootstrap servers of a broker that stays up.
    clickhouse
        URL of a server that stays up.
    folder
        A directory; every scenario makes its own below.
    """

    kafka: str
    clickhouse: str
    folder: Path


Scenario = Callable[[Servers, Form], Iterator[Row]]
"""Yields a row per fault, as soon as it is measured."""
