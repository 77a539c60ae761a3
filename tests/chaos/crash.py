"""`kill -9` at random moments: the end equals that of a run without any trouble, row by row."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.chaos.compare import differences, repeats, told_differently
from tests.chaos.form import Form, Servers
from tests.chaos.report import Row
from tests.chaos.stage import resident_peak_bytes
from tests.e2e.company import Company
from tests.e2e.live import Live, wait_for
from tests.e2e.oncall import OnCall

SEED = 20_260_101
"""Of the moments at which processes are killed."""

PATIENCE_S = 1_800.0


def scenario(servers: Servers, form: Form, *, cluster: tuple[int, int] | None = (3, 2)) -> Iterator[Row]:
    """One process, then a cluster; each against the same undisturbed run.

    Parameters
    ----------
    cluster
        Processes, and workers of each; None leaves the cluster out.
    """
    company = Company(minutes=form.minutes, rate=form.history_rate)
    company.create(servers.kafka)
    company.send(servers.kafka)
    runs = Runs(servers, company)
    try:
        calm = runs.make("calm")
        begun = time.monotonic()
        calm.start()
        _to_the_end(calm)
        whole_s = time.monotonic() - begun
        calm.stop()
        yield runs.killed("kill -9 of the process", "killed", (1, 1), form.kills, whole_s)
        if cluster is not None:
            name = f"kill -9 of one or all of {cluster[0]} processes with {cluster[1]} workers each"
            yield runs.killed(name, "cluster", cluster, form.kills, whole_s)
    finally:
        runs.close()


class Runs:
    """Installations over one company's topics, each with an on-call of its own; the first is the undisturbed one."""

    def __init__(self, servers: Servers, company: Company) -> None:
        self.servers, self.company = servers, company
        self.made: dict[str, tuple[Live, OnCall]] = {}

    def make(self, name: str, **settings: Any) -> Live:
        """An installation."""
        on_call = OnCall().__enter__()
        folder = Path(self.servers.folder) / name
        given = {"epoch_s": 1.0, "kafka": {"block_messages": 10_000}, **settings}
        it = Live(folder, self.company, self.servers.kafka, self.servers.clickhouse, on_call.url, **given)
        self.made[name] = (it, on_call)
        return it

    def close(self) -> None:
        """End and drop all."""
        for it, on_call in self.made.values():
            it.kill()
            on_call.__exit__(None, None, None)
            it.drop()

    def killed(self, fault: str, name: str, cluster: tuple[int, int], kills: int, whole_s: float) -> Row:
        """Kill so often, let the rest run to its end, and compare."""
        it = self.make(name)
        moments = random.Random(SEED)
        processes, workers = cluster
        resumed: list[float] = []
        peak = 0

        def start() -> None:
            if processes == 1:
                it.start("--workers", str(workers))
            else:
                it.start_cluster(processes, workers)

        def life(then: Callable[[], None], *, to_first_block: bool) -> None:
            begun = time.monotonic()
            start()
            if to_first_block:
                wait_for("the first block", lambda: it.metric("tidegauge_blocks_total") > 0)
                resumed.append(time.monotonic() - begun)
            # So short that the rest is still to be read after the last kill.
            time.sleep(moments.uniform(0.0, whole_s / (kills + 1)))
            it.check_alive()
            then()

        def kill_one() -> None:
            """One is killed; the others end by themselves, as they say."""
            victim = moments.choice(it.processes)
            victim.kill()
            for other in it.processes:
                other.wait(30)
            it.kill()

        for number in range(kills):
            met = number % 10 != 7  # now and then the kill falls into the start, before the processes have met
            life(it.kill if number % 3 or processes == 1 or not met else kill_one, to_first_block=met)
        over = it.query("SELECT 1 FROM request_windows WHERE team = 'closing' LIMIT 1")
        start()
        _to_the_end(it)
        peak = max(resident_peak_bytes(p.pid) for p in it.processes)
        it.stop()
        calm, calm_on_call = self.made["calm"]
        on_call = self.made[name][1]
        unlike, told = differences(calm, it), told_differently(calm_on_call, on_call)
        rows = [it.query(f"SELECT count() FROM {t} FINAL")[0][0] for t in ("requests", "gpu_samples")]
        expected = self.company.requests + self.company.samples
        heard = {incident_id for incident_id, _ in calm_on_call.received()}
        note = (
            f"{kills} kills; tables differ: {unlike or 'none'}; told differently: {len(told)}; repeated under the same "
            f"key: {repeats(on_call)}; kill to first block {_middle(resumed):.1f} s, at most {max(resumed):.1f} s; "
            f"undisturbed {whole_s:.0f} s"
        )
        return Row(
            fault=fault,
            events_in=expected,
            rows_out=sum(rows),
            lost=max(expected - sum(rows), 0) + sum(unlike.values()),
            doubled=max(sum(rows) - expected, 0),
            alerts_in=len(heard),
            alerts_lost=len(told),
            alerts_doubled=0,
            peak_memory_mb=peak / 1e6,
            note=note + ("; ALL WAS OVER BEFORE THE LAST KILL" if over else ""),
        )


def _to_the_end(it: Live) -> None:
    wait_for("the last window", it.has_closed_everything, timeout_s=PATIENCE_S)
    wait_for("an empty queue", lambda: it.metric("tidegauge_clickhouse_queued_rows") == 0)
    wait_for("an empty outbox", lambda: it.metric("tidegauge_outbox_waiting") == 0)


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
