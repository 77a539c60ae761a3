"""One installation under live traffic: phases of a fault, and what came of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from tests.chaos.report import PHASES, Row, percentile
from tests.chaos.traffic import Topics, Traffic
from tests.e2e.live import Live, wait_for
from tests.e2e.oncall import OWN, OnCall

SETTINGS: dict[str, Any] = {
    "epoch_s": 1.0,
    "kafka": {"block_messages": 10_000},
    # Short windows give many alerts to time. What lies beyond a window's end is the same for longer ones.
    "windows": {"length_s": 2, "disorder_s": 1.0, "allowed_lateness_s": 10.0, "idle_timeout_s": 30.0},
    "incidents": {"cold_start_s": 3_600.0, "kinds": {"gpu_fault": {"close_after": 3}}},
    "detection": {"parameters": {"gpu_fault": {"quiet_s": 10.0}}},
}
"""Near the defaults; faults of GPUs end within 20 s, so that each of many is told twice."""

QUIET_S = 22.0
"""Within it the last fault ends: `quiet_s`, the closing rows, and the allowed disorder."""

LANDING_S = 900.0
"""How long rows may take to land after the last event."""


class Stage:
    """Tidegauge under live traffic, with on-call listening. A context manager: leaving it ends everything.

    Parameters
    ----------
    folder
        For configuration, state and logs.
    kafka, clickhouse
        Addresses that Tidegauge uses, as for `Live`.
    ask
        The server's own address, where `clickhouse` is a proxy's.
    produce_to
        Kafka's own address, where `kafka` is a proxy's.
    rate_per_s
        Requests per second.
    replication
        Of the topics.
    receivers
        Destinations beside on-call's.
    settings
        Sections whose entries win over `SETTINGS`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kafka: str,
        clickhouse: str,
        ask: str | None = None,
        produce_to: str | None = None,
        rate_per_s: float = 1_000.0,
        replication: int = 1,
        receivers: Sequence[dict[str, Any]] = (),
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.topics = Topics()
        self.topics.create(produce_to or kafka, replication=replication)
        self.on_call = OnCall()
        merged = {k: {**SETTINGS[k], **v} if isinstance(SETTINGS.get(k), dict) else v for k, v in settings.items()}
        self._make: Callable[[], Live] = lambda: Live(
            folder,
            self.topics,
            kafka,
            clickhouse,
            self.on_call.url,
            receivers=receivers,
            ask=ask,
            **{**SETTINGS, **merged},
        )
        self.traffic = Traffic(produce_to or kafka, self.topics, rate_per_s=rate_per_s)
        self.phases: list[tuple[str, float, float]] = []
        self.peak_memory_bytes = 0
        self.seen: Counter[str] = Counter()
        """Largest values of metrics that were watched."""
        self.watched: tuple[str, ...] = ()
        """Names of metrics to watch."""

    def __enter__(self) -> Self:
        self.on_call.__enter__()
        self.live = self._make()
        self.live.start()
        try:
            wait_for("readiness without traffic", self.live.is_ready)
            self.traffic.start()
            wait_for("the first alert", lambda: self.on_call.incidents)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.traffic.is_alive():
            self.traffic.halt()
        self.live.kill()
        self.on_call.__exit__(None, None, None)
        self.live.drop()

    # ------------------------------------------------------------------ phases
    def phase(self, name: str, seconds: float, *, alive: bool = True) -> None:
        """Let time pass under a name (`before`, `during`, `after`)."""
        begun = time.time()
        while (left := begun + seconds - time.time()) > 0:
            self.look(alive=alive)
            time.sleep(min(left, 0.25))
        self.phases.append((name, begun, time.time()))

    def look(self, *, alive: bool = True) -> None:
        """Sample memory and the watched metrics once."""
        if alive:
            self.live.check_alive()
        for process in self.live.processes:
            self.peak_memory_bytes = max(self.peak_memory_bytes, resident_peak_bytes(process.pid))
        if self.watched:
            values = self.live.metrics()
            for metric in self.watched:
                self.seen[metric] = max(self.seen[metric], values.get(metric, 0.0))

    # ------------------------------------------------------------------ the end
    def finish(self) -> None:
        """Let the last faults end, stop the traffic, and wait until everything has landed and has been told."""
        self.traffic.breaking = False
        self.phase("quiet", QUIET_S)
        self.traffic.stop()
        wait_for("the last window", self._has_landed, timeout_s=LANDING_S)
        wait_for("an empty queue", lambda: self.live.metric("tidegauge_clickhouse_queued_rows") == 0)
        wait_for("an empty outbox", lambda: self.live.metric("tidegauge_outbox_waiting") == 0)
        self.look()
        self.live.stop()

    def _has_landed(self) -> bool:
        self.look()
        return self.live.has_closed_everything()

    def row(self, fault: str, note: str = "") -> Row:
        """What came of it; after `finish`."""
        in_all = self.traffic.requests + self.traffic.samples - self.traffic.refused
        (requests, ids), (samples, positions), (in_time,), (counted,) = (
            self.live.query(sql)[0]
            for sql in (
                "SELECT count(), uniqExact(event_id) FROM requests FINAL",
                "SELECT count(), uniqExact(topic, partition, offset, position) FROM gpu_samples FINAL",
                "SELECT countIf(lateness != 'too_late') FROM requests FINAL WHERE event_id LIKE 'c%'",
                "SELECT sum(requests) FROM request_windows_final"
                f" WHERE grouping = '' AND toUnixTimestamp(window_start) <= {self.topics.end_s}",
            )
        )
        told: dict[tuple[str, str], set[str]] = {}
        messages = 0
        for _, key, i in self.on_call.incidents:
            if i["kind"] != OWN:
                told.setdefault((i["incident_id"], i["state"]), set()).add(key)
                messages += 1
        keys = sum(map(len, told.values()))
        if messages > keys:
            note = f"{note}; {messages - keys} messages repeated under the same key".removeprefix("; ")
        whole = self._whole_alerts(told)
        delays = self._delays()
        return Row(
            fault=fault,
            events_in=in_all,
            rows_out=requests + samples,
            lost=in_all - ids - positions,
            doubled=requests + samples - ids - positions,
            uncounted=in_time - counted,
            alerts_in=len(self.traffic.faults),
            alerts_lost=len(self.traffic.faults) - whole,
            alerts_doubled=keys - len(told),
            before_s=percentile(delays["before"], 0.95),
            during_s=percentile(delays["during"], 0.95),
            after_s=percentile(delays["after"], 0.95),
            peak_memory_mb=self.peak_memory_bytes / 1e6,
            note=note,
        )

    def _whole_alerts(self, told: Mapping[tuple[str, str], object]) -> int:
        """Faults whose end was told: what has ended before it could be told comes as its end."""
        opened: dict[tuple[str, int], str] = {}
        length_s = SETTINGS["windows"]["length_s"]
        for _, _, i in self.on_call.incidents:
            if i["kind"] == "gpu_fault":
                opened[(i["dims"].get("node", ""), int(seconds(i["opened_at"])))] = i["incident_id"]
        whole = 0
        for fault in self.traffic.faults:
            incident_id = opened.get((fault.node, int(fault.at_s) // length_s * length_s))
            whole += bool(incident_id and (incident_id, "resolved") in told)
        return whole

    def _delays(self) -> dict[str, list[float]]:
        """Seconds from the end of the window that opened an incident to the first delivery, by phase."""
        out: dict[str, list[float]] = {name: [] for name, _, _ in self.phases} | {name: [] for name in PHASES}
        first: set[str] = set()
        ahead = time.time() - time.monotonic()
        for arrived, _, i in self.on_call.incidents:
            if i["kind"] != "gpu_fault" or i["incident_id"] in first:
                continue
            first.add(i["incident_id"])
            due = seconds(i["detected_at"])
            for name, begun, ended in self.phases:
                if begun <= due < ended:
                    out[name].append(arrived + ahead - due)
        return out


def seconds(rfc3339: str) -> float:
    """Epoch seconds."""
    return datetime.fromisoformat(rfc3339).timestamp()


def resident_peak_bytes(pid: int) -> int:
    """Largest resident set that a process had so far; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0
