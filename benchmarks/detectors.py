"""Microseconds per series and row of every detector, at 1, 1 000 and 10 000 slots, and its state in bytes per series.

Run from the repository root: `python -m benchmarks.detectors [NAME ...]`. One line of JSON per detector and size.
A row is one `score_many` and one `learn_many`; rows are made before the clock starts; the best of several runs counts.
"""

from __future__ import annotations

import json
import pickle
import sys
import time

from detectors import DETECTORS, ON_REQUEST
from detectors.checks import features_of, make, stream

SIZES = (1, 1_000, 10_000)
ROWS = 6
RUNS = 3


def measure(name: str, n: int) -> dict[str, float | int | str]:
    detector = make(DETECTORS[name], n)
    source = stream(detector, n)
    rows = [features_of(detector, source.row()) for _ in range(ROWS)]
    best = float("inf")
    for _ in range(RUNS):
        start = time.perf_counter()
        for x in rows:
            detector.score_many(x)
            detector.learn_many(x)
        best = min(best, time.perf_counter() - start)
    return {
        "detector": name,
        "slots": n,
        "us_per_series_and_row": round(best / ROWS / n * 1e6, 3),
        "bytes_per_series": round(len(pickle.dumps(detector.state)) / n),
    }


def main() -> None:
    for name in sys.argv[1:] or DETECTORS:
        for n in SIZES:
            if name in ON_REQUEST and n > SIZES[1]:
                continue  # one object per series
            print(json.dumps(measure(name, n)), flush=True)


if __name__ == "__main__":
    main()
