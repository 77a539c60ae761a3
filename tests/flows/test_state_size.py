"""Series and GPUs that have gone silent are forgotten everywhere: saved state becomes small again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flows.assembly import Parts
from flows.pricing import PriceBook
from flows.settings import Settings, Windows
from flows.sources.item import Item
from flows.steps import fold, fold_gpu_item
from schemas.block import Block
from schemas.formats import get_format

START_S = 1_780_304_400
MANY = 200
EVICT_S = 480.0


@pytest.fixture(scope="module")
def parts() -> Parts:
    windows = Windows(
        length_s=60,
        shards=1,
        grouping_sets=[[], ["team"]],
        max_values_per_dimension=MANY,
        evict_after_s=EVICT_S,
        disorder_s=1.0,
    )
    return Parts(Settings(windows=windows), PriceBook.load(None))


def block(minute: int, events: list[dict[str, Any]], offset: int) -> Block:
    at = START_S + 60 * minute
    n = len(events)
    payloads: list[bytes | None] = [json.dumps({"at": at + 50 * i // n, **e}).encode() for i, e in enumerate(events)]
    return Block("t", 0, list(range(offset, offset + n)), payloads, [at * 1000] * n)


class Requests:
    """Everything that a request goes through."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.reader = parts.partition("t", 0, get_format("request"), None)
        self.merge = parts.merge(["t/0"], None)
        self.detection = parts.detect_requests(None)
        self.judge = parts.judge(["0"], None)
        self.offset = 0

    def feed(self, minute: int, n: int) -> None:
        events = [
            {"team": f"team-{i:05}", "provider": "openai", "model": "gpt-5", "status": 500 if minute % 7 == 6 else 200,
             "latency_ms": 100 + i, "input_tokens": 10, "prefix_hash": f"{minute}/{i}"}
            for i in range(n)
        ]  # fmt: skip
        batch: Any = self.reader.feed(block(minute, events, self.offset))
        self.offset += n
        for _, partials in fold(self.parts.price(Item("t/0", batch, batch.watermark_ns)), self.parts.fold):
            self.merge.add(partials)
        for piece in self.detection.progress("0", self.merge.advance(), self.merge.watermark_ns):
            self.judge.on_progress(piece)

    def sizes(self) -> dict[str, int]:
        held = {"windows": self.merge, "detectors": self.detection, "judge": self.judge, "decoder": self.reader}
        return {name: len(it.snapshot()) for name, it in held.items()}


class Gpus:
    """Everything that a GPU sample goes through."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.reader = parts.partition("t", 0, get_format("gpu"), None)
        self.merge = parts.merge_gpus(None)
        self.detection = parts.detect_gpus(None)
        self.judge = parts.judge(["gpus"], None)
        self.offset = 0

    def feed(self, minute: int, n: int) -> None:
        events = [
            {"node": f"node-{i // 8}", "gpu_uuid": f"GPU-{i:05}", "gpu_index": i % 8, "util": 0.5,
             "xid": 79 if minute % 7 == 6 else 0, "memory_used_bytes": 10, "memory_total_bytes": 80}
            for i in range(n)
        ]  # fmt: skip
        batch: Any = self.reader.feed(block(minute, events, self.offset))
        self.offset += n
        priced = self.parts.price_gpus(Item("t/0", batch, batch.watermark_ns))
        for _, part in fold_gpu_item(priced, self.parts.window_ns):
            self.merge.add(part.partials)
        closed = self.merge.advance(batch.watermark_ns)
        for piece in self.detection.progress("gpus", closed, batch.watermark_ns):
            self.judge.on_progress(piece)

    def sizes(self) -> dict[str, int]:
        held = {"windows": self.merge, "detectors": self.detection, "judge": self.judge}
        return {name: len(it.snapshot()) for name, it in held.items()}


@pytest.mark.parametrize("make", [Requests, Gpus])
def test_what_has_gone_silent_is_forgotten_everywhere(make: Callable[[Parts], Any], parts: Parts) -> None:
    it = make(parts)
    for minute in range(6):
        it.feed(minute, 8)
    small = it.sizes()
    for minute in range(6, 12):
        it.feed(minute, MANY)
    grown = it.sizes()
    for minute in range(12, 12 + 2 * int(EVICT_S // 60) + 30):
        it.feed(minute, 8)
    again = it.sizes()
    for name in ("windows", "detectors"):
        assert grown[name] > 3 * small[name], (name, small, grown)
        assert again[name] < 1.5 * small[name], (name, small, grown, again)
    # The eight that go on still have incidents, and the decoder remembers the names of the last hours.
    assert again["judge"] < max(grown["judge"] // 4, 12_000), (small, grown, again)
    assert again.get("decoder", 0) <= grown.get("decoder", 0)
    assert it.detection.slots.evicted >= MANY - 8
