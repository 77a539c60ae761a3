"""`tidegauge simulate`: files of a believable company, with known incidents."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress

from flows.simulate import run_simulate
from schemas.errors import BadSettings


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
            Path(out),
            incidents,
            start=_moment(start),
            progress=lambda done, _: progress.update(task, completed=done),
        )
    return 0


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as problem:
        raise BadSettings(f"simulate: --start {text!r} is no RFC 3339 time.") from problem
    if at.tzinfo is None:
        raise BadSettings(f"simulate: --start {text!r} has no time zone; end it with Z.")
    return at
