"""Saved state: bytes per series of every component, and the time that a snapshot and a start with it take.

`python -m benchmarks.state [SERIES ...]`: twenty minutes of event time, one request per series and minute.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from flows.assembly import Parts
from flows.partition.requests import RequestPartition
from flows.pricing import PriceBook
from flows.settings import Settings, Windows
from flows.sources.item import Item
from flows.steps import fold
from schemas.block import Block
from schemas.formats import get_format

START_S = 1_780_304_400
MINUTES = 20


def main() -> None:
    book = PriceBook.load(None)
    for n in [int(text) for text in sys.argv[1:]] or [1_000, 10_000]:
        windows = Windows(shards=1, grouping_sets=[["team"]], max_values_per_dimension=n, max_series=n)
        for line in measure(Parts(Settings(windows=windows), book), n):
            print(json.dumps(line), flush=True)


def measure(parts: Parts, n: int) -> list[dict[str, Any]]:
    """One line per component."""
    format = get_format("request")
    reader = parts.partition("t", 0, format, None)
    assert isinstance(reader, RequestPartition)
    merge = parts.merge(["t/0"], None)
    detection = parts.detect_requests(None)
    judge = parts.judge(["0"], None)
    for minute in range(MINUTES):
        at = START_S + 60 * minute
        payloads: list[bytes | None] = [
            json.dumps(
                {
                    "at": at + 50 * i // n, "team": f"team-{i:06}", "provider": "openai",
                    "model": "gpt-5", "status": 200,
                    "input_tokens": 900 + i % 200, "output_tokens": 90, "latency_ms": 700 + i % 500,
                }
            ).encode()
            for i in range(n)
        ]  # fmt: skip
        batch = reader.feed(Block("t", 0, list(range(minute * n, (minute + 1) * n)), payloads, [at * 1000] * n))
        for _, partials in fold(parts.price(Item("t/0", batch, batch.watermark_ns)), parts.fold):
            merge.add(partials)
        for piece in detection.progress("0", merge.advance(), merge.watermark_ns):
            judge.on_progress(piece)
    read: list[tuple[str, Callable[[], bytes], Callable[[bytes], object]]] = [
        ("partition decoder", reader.snapshot, lambda saved: parts.partition("t", 0, format, saved)),
        ("windows", merge.snapshot, lambda saved: parts.merge(["t/0"], saved)),
        ("detectors", detection.snapshot, parts.detect_requests),
        ("judge", judge.snapshot, lambda saved: parts.judge(["0"], saved)),
    ]
    out = []
    for name, save, restore in read:
        begun = time.perf_counter()
        saved = save()
        between = time.perf_counter()
        restore(saved)
        done = time.perf_counter()
        out.append(
            {
                "series": n,
                "component": name,
                "bytes": len(saved),
                "bytes_per_series": round(len(saved) / n, 1),
                "snapshot_ms": round((between - begun) * 1e3, 2),
                "restore_ms": round((done - between) * 1e3, 2),
            }
        )
    return out


if __name__ == "__main__":
    main()
