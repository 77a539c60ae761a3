"""`tidegauge simulate`: files of a believable company, with known incidents."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress

from flows.simulate import run_simulate


def simulate(
    *,
    minutes: int,
    out: str,
    seed: int = 1,
    rate: float = 50.0,
    incidents: str = "default",
    start: Annotated[str | None, Parameter(name="--start")] = None,
) -> int:
    """Write requests.jsonl.gz, gpus.jsonl.gz and truth.jsonl of a simulated company. Same seed, same bytes.

    Example: tidegauge simulate --minutes 120 --seed 7 --rate 50 --out sim

    Parameters
    ----------
    minutes
        Simulated time.
    out
        Folder to write to.
    seed
        Seed of everything that is random.
    rate
        Mean requests per second of the whole company.
    incidents
        `default`, `none`, or a file of JSON lines like truth.jsonl.
    start
        First moment, RFC 3339.
    """
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("simulating", total=minutes)
        run_simulate(
            minutes,
            seed,
            rate,
            out,
            incidents,
            start=start,
            progress=lambda done: progress.update(task, completed=done),
        )
    return 0
