"""Records what every component saves, and reads it again, under whatever NumPy and River are installed.

`python -m tests.flows.record_state write FILE` records; `read FILE` says what came back, as JSON. To record under other
versions: `pip install --target DIR --no-deps numpy==… river==…` and set `PYTHONPATH=DIR:.`
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from flows.assembly import Parts
from flows.pricing import PriceBook
from flows.settings import Settings, Windows
from schemas.formats import get_format
from tests.flows.test_state_size import Gpus, Requests

SERIES = 5
MINUTES = 8


def parts() -> Parts:
    """One shard, long windows."""
    return Parts(
        Settings(windows=Windows(length_s=60, shards=1, grouping_sets=[[], ["team"]], disorder_s=1.0)),
        PriceBook.load(None),
    )


def write(file: Path) -> None:
    """Save some minutes of both streams."""
    held: dict[str, dict[str, bytes]] = {}
    for kind in (Requests, Gpus):
        it = kind(parts())
        for minute in range(MINUTES):
            it.feed(minute, SERIES)
        held[kind.__name__] = {name: getattr(it, name).snapshot() for name in ("reader", "merge", "detection", "judge")}
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "river")}
    file.write_bytes(gzip.compress(msgspec.msgpack.encode([versions, held]), mtime=0))


def read(file: Path) -> dict[str, Any]:
    """Start every component with what was saved, go on for a minute, and say what is known."""
    kind = tuple[dict[str, str], dict[str, dict[str, bytes]]]
    versions, held = msgspec.msgpack.decode(gzip.decompress(file.read_bytes()), type=kind)
    p = parts()
    requests, gpus = Requests(p), Gpus(p)
    saved = held["Requests"]
    requests.reader = p.partition("t", 0, get_format("request"), saved["reader"])
    requests.merge = p.merge(["t/0"], saved["merge"])
    requests.detection = p.detect_requests(saved["detection"])
    requests.judge = p.judge(["0"], saved["judge"])
    saved = held["Gpus"]
    gpus.reader = p.partition("t", 0, get_format("gpu"), saved["reader"])
    gpus.merge = p.merge_gpus(saved["merge"])
    gpus.detection = p.detect_gpus(saved["detection"])
    gpus.judge = p.judge(["gpus"], saved["judge"])
    known = {
        "offsets": [requests.reader.offset, gpus.reader.offset],
        "series": [int(it.detection.slots.live.sum()) for it in (requests, gpus)],
        "gpus": len(gpus.merge),
        "watermark_ns": requests.merge.watermark_ns,
    }
    for it in (requests, gpus):
        it.offset = MINUTES * SERIES
        it.feed(MINUTES, SERIES)
    return {"written_with": versions, **known}


if __name__ == "__main__":
    what, where = sys.argv[1:]
    if what == "write":
        write(Path(where))
    else:
        print(json.dumps(read(Path(where))))
