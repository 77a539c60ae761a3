"""The whole flow from a file against merely parsing the same file: `python -m benchmarks.flow [EVENTS] [ROUNDS]`.

Decode, price, fold, merge, detect and judge, without a database, one worker; the limit is `orjson.loads` on every
line, result dropped. Rounds alternate; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import orjson

from flows.commands.replay import replay
from flows.simulate import planned_incidents, simulate


def main(events: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="tidegauge-bench-") as folder:
        path = Path(folder) / "requests.jsonl"
        minutes, rate = 10, events / 600
        planned = planned_incidents("default", minutes=minutes, seed=1)
        with path.open("wb") as file:
            for minute in simulate(minutes=minutes, seed=1, rate=rate, incidents=planned):
                file.writelines(value + b"\n" for value in minute.requests)
        lines = path.read_bytes().splitlines()
        size = sum(map(len, lines)) / len(lines)
        print(f"{len(lines):,} events of {size:.0f} bytes on average, {minutes} minutes of event time, {rounds} rounds")
        limit, flow = [], []
        for _ in range(rounds):
            limit.append(_timed(lambda: _parse(path)))
            flow.append(_timed(lambda: _replay(path)))
        n = len(lines)
        ratio = statistics.median(a / b for a, b in zip(limit, flow, strict=True))
        print(f"{'orjson.loads per line':32} {n / statistics.median(limit):12,.0f} events/s")
        print(f"{'whole flow, no database':32} {n / statistics.median(flow):12,.0f} events/s   ratio {ratio:.2f}")


def _parse(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(orjson.JSONDecodeError):
                orjson.loads(line)


def _replay(path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        replay(str(path))


def _timed(run: object) -> float:
    start = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - start


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 200_000,
        int(sys.argv[2]) if len(sys.argv) > 2 else 5,
    )
