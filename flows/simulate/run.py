"""The simulator's entry points: minutes as they pass, or files on disk."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import numpy as np

from flows.simulate.company import WORKLOAD_DIMS, Company
from flows.simulate.effects import scope_of
from flows.simulate.encode import Encoder
from flows.simulate.gpus import GPU_DIMS, Samples, chosen
from flows.simulate.incidents import GPU_KINDS, Planned, check, encode_truth, read_truth
from flows.simulate.rows import Ints
from flows.simulate.schedule import default_plan
from flows.simulate.traffic import Traffic, ends_at
from schemas.errors import BadSettings

DEFAULT_START = datetime(2026, 6, 1, 9, tzinfo=UTC)
"""A Monday morning: every team is at work. All models have prices on that day."""

MAX_MINUTES = 60 * 24 * 400

ENGINE_LOAD = 0.3
"""How busy the engines are at the mean of their week's demand."""

GZIP_LEVEL = 4
"""Measured on simulated requests: a quarter of the time of level 9, for files that are 25 % larger."""


@dataclass(slots=True)
class Minute:
    """Everything that producers send in one minute, in their order."""

    start_ns: int
    requests: list[bytes]
    request_at_ns: Ints
    request_keys: list[bytes]
    """The API key, so that one producer's requests stay in order."""
    gpus: list[bytes]
    gpu_at_ns: Ints
    gpu_keys: list[bytes]
    """The GPU's UUID."""


def simulate(
    *,
    minutes: int,
    seed: int,
    rate: float,
    start: datetime = DEFAULT_START,
    incidents: Sequence[Planned] | None = None,
    company: Company | None = None,
) -> Iterator[Minute]:
    """Simulate a company, minute by minute.

    The same arguments give the same bytes; a longer simulation begins with the same minutes as a shorter one.

    Parameters
    ----------
    minutes
        Length.
    seed
        Varies the company and everything random.
    rate
        Mean requests per second of the whole company, on the average of a week.
    start
        With a time zone; whole seconds.
    incidents
        What happens (`planned_incidents` reads or makes a plan); None means an uneventful time.
    company
        The default company of the seed if not given.

    Raises
    ------
    BadSettings
        An argument out of range, or an incident that would happen to nobody.
    """
    if not 1 <= minutes <= MAX_MINUTES:
        raise BadSettings(f"simulate: minutes must lie between 1 and {MAX_MINUTES}, got {minutes}")
    if not 0 < rate <= 1e6:
        raise BadSettings(f"simulate: rate must lie above 0 and at most 1,000,000 requests per second, got {rate}")
    if not 0 <= seed < 2**63:
        raise BadSettings(f"simulate: seed must lie between 0 and 2^63 - 1, got {seed}")
    if start.tzinfo is None:
        raise BadSettings("simulate: start needs a time zone, such as 2026-06-01T09:00:00Z")
    who = company or Company.default(seed)
    plan = list(incidents or ())
    for number, planned in enumerate(plan, 1):
        _check_target(who, check(planned, f"incident {number}"), f"incident {number}")
    return _minutes(minutes, seed, rate, int(start.timestamp()) * 1_000_000_000, plan, who)


def _minutes(
    minutes: int, seed: int, rate: float, start_ns: int, plan: list[Planned], company: Company
) -> Iterator[Minute]:
    traffic = Traffic(company, seed, rate, start_ns, plan)
    encoder = Encoder(traffic.workloads, seed, start_ns)
    samples = Samples(company.gpus, seed, start_ns, plan)
    models = np.array([w.model if w.provider == "vllm" else "" for w in company.workloads])
    served = sorted({m for m in models.tolist() if m})
    for i in range(minutes):
        rows = traffic.minute(i)
        demand = traffic.demand(i) * traffic.per_minute
        load = {m: float(demand[models == m].sum() / traffic.per_minute[models == m].sum()) for m in served}
        load = {m: min(0.85, ENGINE_LOAD * level) for m, level in load.items()}
        rows = rows.take(ends_at(rows))
        requests, keys = encoder.encode(rows, i)
        gpus, gpu_at_ns, gpu_keys = samples.minute(i, load)
        yield Minute(
            start_ns + i * 60_000_000_000,
            requests,
            start_ns + rows.at_ms * 1_000_000,
            keys,
            gpus,
            gpu_at_ns,
            gpu_keys,
        )


def _check_target(company: Company, planned: Planned, where: str) -> None:
    known = GPU_DIMS if planned.kind in GPU_KINDS else (*WORKLOAD_DIMS, "user_id")
    if planned.kind == "engine_saturation":
        known = (*GPU_DIMS, "provider")
    for name in planned.dims:
        if name not in known:
            raise BadSettings(f"{where}: {planned.kind} cannot choose by `{name}`; it can by {', '.join(known)}")
    found = chosen(company.gpus, planned) if planned.kind in GPU_KINDS else scope_of(company.workloads, planned)
    if not found.any():
        raise BadSettings(f"{where}: nothing in the company has {planned.dims}; docs/simulator.md lists what it has")


def planned_incidents(which: str, *, minutes: int, seed: int, start: datetime = DEFAULT_START) -> list[Planned]:
    """What `--incidents` asks for: `default`, `none`, or a file of JSON lines.

    Raises
    ------
    BadSettings
        The file cannot be read, or a line does not fit.
    """
    if which == "none":
        return []
    if which == "default":
        return default_plan(Company.default(seed), minutes=minutes, seed=seed, start=start)
    return read_truth(Path(which))


def write(
    out_dir: Path,
    *,
    minutes: int,
    seed: int,
    rate: float,
    start: datetime = DEFAULT_START,
    incidents: Sequence[Planned] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `requests.jsonl.gz`, `gpus.jsonl.gz` and `truth.jsonl`; the same arguments give the same bytes.

    Parameters
    ----------
    progress
        Called after each minute with the minutes done and the requests written so far.
    """
    stream = simulate(minutes=minutes, seed=seed, rate=rate, start=start, incidents=incidents)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "truth.jsonl").write_bytes(encode_truth(list(incidents or ())))
    written = 0
    with (
        (out_dir / "requests.jsonl.gz").open("wb") as raw_requests,
        (out_dir / "gpus.jsonl.gz").open("wb") as raw_gpus,
        _gzip(raw_requests) as requests,
        _gzip(raw_gpus) as gpus,
    ):
        for done, minute in enumerate(stream, 1):
            requests.write(b"".join(line + b"\n" for line in minute.requests))
            gpus.write(b"".join(line + b"\n" for line in minute.gpus))
            written += len(minute.requests)
            if progress is not None:
                progress(done, written)


def _gzip(raw: IO[bytes]) -> gzip.GzipFile:
    """A gzip stream without name or time, so that its bytes depend on its content alone."""
    return gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=raw, mtime=0)


def run_simulate(
    minutes: int,
    seed: int,
    rate: float,
    out: Path,
    incidents: str = "default",
    start: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """`tidegauge simulate`: plan what happens, simulate, write the three files.

    Raises
    ------
    BadSettings
        An argument out of range, or an incident that does not fit.
    """
    begin = start or DEFAULT_START
    if begin.tzinfo is None:
        raise BadSettings("simulate: start needs a time zone, such as 2026-06-01T09:00:00Z")
    plan = planned_incidents(incidents, minutes=minutes, seed=seed, start=begin)
    write(out, minutes=minutes, seed=seed, rate=rate, start=begin, incidents=plan, progress=progress)
