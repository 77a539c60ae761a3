"""The database away in every way at full speed: alerts keep their delay, memory its bounds, and every row lands once.

And beyond the spool's size: the flow waits, on-call is told that it does, and nothing is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.form import Form, Servers
from tests.chaos.report import Row
from tests.chaos.stage import Stage
from tests.e2e.live import Live, wait_for
from tests.servers.cache import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import MAY_READ, MAY_WRITE, users
from tests.servers.disk import SmallDisk
from tests.servers.proxy import FaultProxy

INSERT = b"INSERT"
BLOCKED = "tidegauge_clickhouse_blocked"
FAILURES = "tidegauge_clickhouse_failures_total"
WATCHED = (
    FAILURES,
    "tidegauge_clickhouse_queued_bytes",
    "tidegauge_clickhouse_queued_rows",
    "tidegauge_clickhouse_spooled_bytes",
    "tidegauge_lag_messages",
)
CATCH_UP_S = 1_800.0
DISK_MB = 500
SMALL_SPOOL_BYTES_PER_RATE = 800
"""Bytes of a small spool for every request per second: room for some seconds."""


class Place:
    """A database server of a scenario's own behind a proxy, on a small disk where that is wanted. A context manager."""

    def __init__(self, folder: Path, *, on_small_disk: bool = False) -> None:
        self._stack = ExitStack()
        self.disk = self._stack.enter_context(SmallDisk(folder / "disk", DISK_MB)) if on_small_disk else None
        self.server = ClickHouseServer(folder / "disk" / "server", free_port(), users(MAY_WRITE))

    def __enter__(self) -> Place:
        with ExitStack() as opening:
            opening.push(self._stack)
            self._stack.callback(self.server.kill)
            self.server.start()
            self.proxy = self._stack.enter_context(FaultProxy(("127.0.0.1", self.server.port)))
            opening.pop_all()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """For Tidegauge."""
        return f"http://writer@{self.proxy.address}/tidegauge"

    def restart(self, rights: str = MAY_WRITE) -> None:
        """`kill -9` and a new start."""
        self.server.kill()
        self.server.users_xml = users(rights)
        self.server.start()

    def fill(self) -> None:
        """Leave less room than an insert wants."""
        assert self.disk is not None, "only a small disk can be filled"
        self.disk.fill(leaving=500_000)

    def make_room(self) -> None:
        """Undo it."""
        assert self.disk is not None, "only a small disk can be filled"
        self.disk.empty()


Switch = Callable[[Place], object]

DISK_FULL = "disk full"
LONGEST = "down (kill -9)"
"""The fault that lasts `Form.outage_s`."""

FAULTS: dict[str, tuple[Switch, Switch]] = {
    LONGEST: (lambda p: p.server.kill(), lambda p: p.server.start()),
    "refuses connections": (lambda p: p.proxy.refuse(), lambda p: p.proxy.heal()),
    "hangs: takes, never answers": (lambda p: p.proxy.half_open(), lambda p: p.proxy.heal()),
    "hangs from the middle of an insert": (
        lambda p: p.proxy.fall_silent_after(1_000, marker=INSERT),
        lambda p: p.proxy.heal(),
    ),
    "takes rows, answers are lost": (lambda p: p.proxy.half_open(delivers=True), lambda p: p.proxy.heal()),
    "slower than the input": (lambda p: p.proxy.throttle(4_000), lambda p: p.proxy.heal()),
    "late: every byte 0.5 s": (lambda p: p.proxy.delay(0.5), lambda p: p.proxy.heal()),
    "read-only": (lambda p: p.restart(MAY_READ), lambda p: p.restart()),
    DISK_FULL: (Place.fill, Place.make_room),
}
"""How each begins and how it ends."""


SHORT_FAULTS = (LONGEST, "hangs from the middle of an insert", "takes rows, answers are lost", "slower than the input")


def scenario(servers: Servers, form: Form) -> Iterator[Row]:
    """One fault after the other, then a spool that is too small; the short form: some faults within one life."""
    if form.outage_s < 60:
        with Place(servers.folder / "away") as place:
            yield _away(servers, form, place, SHORT_FAULTS, form.during_s / 2)
        return
    for number, fault in enumerate(FAULTS):
        try:
            at = Place(servers.folder / f"away-{number}", on_small_disk=fault == DISK_FULL)
        except pytest.skip.Exception:  # mounting is not permitted here: the table has no such row
            continue
        with at as place:
            yield _away(servers, form, place, [fault], form.outage_s if fault == LONGEST else form.during_s)
    with Place(servers.folder / "spool") as place:
        yield _full_spool(servers, form, place)


def _away(servers: Servers, form: Form, place: Place, faults: Sequence[str], lasting_s: float) -> Row:
    with Stage(
        servers.folder / f"away-{place.server.port}", kafka=servers.kafka, clickhouse=place.url, ask=place.server.url,
        rate_per_s=form.rate_per_s,
    ) as stage:  # fmt: skip
        stage.watched = WATCHED
        stage.phase("before", form.before_s)
        healthy_mb = stage.peak_memory_bytes / 1e6
        for fault in faults:
            begin, end = FAULTS[fault]
            begin(place)
            stage.phase("during", lasting_s)
            end(place)
        queued = stage.live.metric("tidegauge_clickhouse_queued_rows")
        drained_s = _drain(stage)
        stage.phase("after", form.after_s)
        stage.finish()
        name = faults[0] if len(faults) == 1 else f"{', '.join(faults)}; {lasting_s:g} s each"
        return stage.row(
            f"ClickHouse {name}" + (f", {lasting_s:g} s" if len(faults) == 1 else ""),
            f"{queued:,.0f} rows waited at the end, landed within {drained_s:.0f} s; at most "
            f"{stage.seen['tidegauge_clickhouse_queued_bytes'] / 1e6:.0f} MB of them in memory, "
            f"{stage.seen['tidegauge_clickhouse_spooled_bytes'] / 1e6:.0f} MB on disk; largest lag "
            f"{stage.seen['tidegauge_lag_messages']:,.0f} messages; memory before {healthy_mb:.0f} MB"
            f"; failed inserts {stage.seen[FAILURES]:,.0f}",
        )


def _full_spool(servers: Servers, form: Form, place: Place) -> Row:
    spool_bytes = int(form.rate_per_s * SMALL_SPOOL_BYTES_PER_RATE)
    with Stage(
        servers.folder / "full", kafka=servers.kafka, clickhouse=place.url, ask=place.server.url,
        rate_per_s=form.rate_per_s, settings={"clickhouse": {"spool_bytes": spool_bytes}},
    ) as stage:  # fmt: skip
        stage.watched = WATCHED
        stage.phase("before", form.before_s)
        place.server.kill()
        wait_for("the flow to wait", lambda: _looked(stage).metric(BLOCKED) == 1)
        stage.phase("stalled", form.during_s)
        status, words = stage.live.get("/readyz")
        wait_for("on-call to be told", lambda: _stalls(stage))
        stage.live.kill()
        stage.live.start()
        wait_for("the flow to wait again", lambda: stage.live.metric(BLOCKED) == 1)
        place.server.start()
        drained_s = _drain(stage)
        wait_for("the end to be told", lambda: [state for _, state in _stalls(stage) if state == "resolved"])
        stage.phase("after", form.after_s)
        stage.finish()
        told = _stalls(stage)
        return stage.row(
            f"spool full for {form.during_s:g} s and more, `kill -9` meanwhile",
            f"`/readyz` {status}: {words.strip()[:80]}…; told of {len({i for i, _ in told})} stall: "
            f"{', '.join(state for _, state in told)}; landed within {drained_s:.0f} s; at most "
            f"{stage.seen['tidegauge_clickhouse_spooled_bytes'] / 1e6:.1f} MB on disk, largest lag "
            f"{stage.seen['tidegauge_lag_messages']:,.0f} messages",
        )


def _looked(stage: Stage) -> Live:
    stage.look()
    return stage.live


def _stalls(stage: Stage) -> list[tuple[str, str]]:
    """Stalls that on-call was told of: incident and state."""
    return [(i["incident_id"], i["state"]) for _, _, i in stage.on_call.incidents if "stands still" in i["summary"]]


def _drain(stage: Stage) -> float:
    """Wait until the spool is empty; the seconds that it took."""
    begun = time.monotonic()
    spooled = "tidegauge_clickhouse_spooled_bytes"
    wait_for("an empty spool", lambda: _looked(stage).metrics().get(spooled) == 0, timeout_s=CATCH_UP_S)
    return time.monotonic() - begun
