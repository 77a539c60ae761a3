"""A flood of distinct values: state, tables and cost follow the settings, not the input."""

from __future__ import annotations

import json
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, generate_latest

from flows.assembly import Parts
from flows.folding import FoldingLog
from flows.metrics import FlowMetrics
from flows.settings import Settings, Windows
from flows.sources.item import Item
from flows.steps import GpuPart, GpuWindowStep, Priced, WindowStep, fold, fold_gpu_item
from schemas.block import Block
from schemas.formats import get_format
from tests.fuzz.whole import book

T0 = 1_767_268_800
BLOCK = 10_000
FLOODED = ("team", "api_key_id", "product", "prompt_version", "user_id", "prefix_hash", "event_id")


class Flood:
    """One shard of requests and the GPU flow, with small bounds."""

    def __init__(self, **windows: Any) -> None:
        settings = Settings(windows=Windows(shards=1, **windows))
        self.parts = Parts(settings, book())
        self.reader = self.parts.partition("t", 0, get_format("request"), None)
        self.gpus = self.parts.partition("t", 0, get_format("gpu"), None)
        self.merge = WindowStep(self.parts.merge(["t/0"], None))
        self.detection = self.parts.detect_requests(None)
        self.gpu_merge = GpuWindowStep(self.parts.merge_gpus(None), ["t/0"])
        self.metrics = FlowMetrics(registry := CollectorRegistry())
        self.registry = registry
        self.log = FoldingLog()
        self.rows: list[int] = []
        self.offset = 0

    def block(self, events: list[dict[str, Any]]) -> Block:
        offsets = range(self.offset, self.offset + len(events))
        self.offset += len(events)
        return Block("t", 0, offsets, [json.dumps(e).encode() for e in events], [-1] * len(events))

    def requests(self, events: list[dict[str, Any]]) -> None:
        batch = self.reader.feed(self.block(events))
        priced = Priced(Item("t/0", batch, batch.watermark_ns), self.parts.book.price(batch.columns))  # type: ignore[arg-type]
        for to in (self.metrics, self.log):
            to.on_requests([priced])
        for _, partials in fold(priced, self.parts.fold):
            closed = list(self.merge.on_batch([partials])[0])
            self.tell(closed)
            for each in closed:
                self.detection.on_windows("0", each.requests, each.watermark_ns)

    def samples(self, events: list[dict[str, Any]]) -> None:
        batch = self.gpus.feed(self.block(events))
        priced = self.parts.price_gpus(Item("t/0", batch, batch.watermark_ns))
        parts: list[GpuPart] = [part for _, part in fold_gpu_item(priced, self.parts.window_ns)]
        self.tell(list(self.gpu_merge.on_batch(parts)[0]))

    def tell(self, closed: list[Any]) -> None:
        for to in (self.metrics, self.log):
            to.on_closed(closed)
        self.rows += [len(w) for each in closed for w in (*each.requests, *each.gpus)]


def request(n: int, at: float, **fixed: Any) -> dict[str, Any]:
    return {
        "at": at, "provider": "p", "model": "m", "status": 200, "input_tokens": 5, "latency_ms": 10.0,
        **{name: f"{name}-{n}" for name in FLOODED}, **fixed,
    }  # fmt: skip


def test_a_hundred_thousand_values_a_minute_are_bounded_counted_and_said() -> None:
    flood = Flood(max_values_per_dimension=50, max_series=400)
    sizes = []
    with structlog.testing.capture_logs() as logs:
        for start in range(0, 100_000, BLOCK):
            flood.requests([request(n, T0 + n * 60 / 100_000) for n in range(start, start + BLOCK)])
            sizes.append(len(flood.reader.snapshot()) + len(flood.merge.snapshot()) + len(flood.detection.snapshot()))
    assert max(flood.rows) <= 400
    assert len(flood.detection.slots.live_series()) <= 400
    assert len(flood.detection.slots) <= 512
    # Two generations of 25,000 prefixes of 16 bytes, and what the bounds above hold; the flood itself names 35 MB.
    assert max(sizes) < 2_500_000
    exposed = generate_latest(flood.registry).decode()
    folded = [line for line in exposed.splitlines() if line.startswith("tidegauge_folded_values_total{")]
    assert sorted(folded) == [
        f'tidegauge_folded_values_total{{dimension="{name}"}} 99950.0'
        for name in ("api_key_id", "product", "prompt_version", "team")
    ]
    assert len(exposed) < 20_000, "no value has become a label"
    said = [entry["what"] for entry in logs if entry["log_level"] == "warning"]
    assert sorted(set(said)) == sorted(said)
    assert {"team", "api_key_id"} <= set(said)


def test_more_series_than_allowed_are_folded_counted_and_said() -> None:
    flood = Flood(max_values_per_dimension=1_000, max_series=200)
    with structlog.testing.capture_logs() as logs:
        for second in (0, 30):
            flood.requests([request(n, T0 + second) for n in range(1_000)])
    assert len(flood.rows) == 1
    assert flood.rows[0] <= 200 + len(Windows().grouping_sets), "and one `other` for each grouping set"
    assert "tidegauge_folded_window_rows_total" in generate_latest(flood.registry).decode()
    assert "series" in [entry.get("what") for entry in logs]


def test_more_gpus_than_allowed_are_left_out_of_windows_counted_and_said() -> None:
    flood = Flood(max_series=300)
    with structlog.testing.capture_logs() as logs:
        for start in range(0, 40_000, BLOCK):
            flood.samples(
                [
                    {"at": T0 + n * 60 / 40_000, "node": f"n{n}", "gpu_uuid": f"g{n}", "pod": f"p{n}", "gpu_index": 1}
                    for n in range(start, start + BLOCK)
                ]
            )
    assert len(flood.gpu_merge.merge) == 300
    assert max(flood.rows) <= 300 * 8, "GPUs and their roll-ups"
    assert len(flood.gpu_merge.merge._first.places) <= 300
    assert "gpus" in [entry.get("what") for entry in logs]
    assert 'tidegauge_folded_window_rows_total{stream="gpus"}' in generate_latest(flood.registry).decode()


def test_which_gpus_find_room_does_not_depend_on_the_order_of_partitions() -> None:
    def followed(order: list[int]) -> list[str]:
        flood = Flood(max_series=2)
        flood.samples([{"at": T0, "node": "n", "gpu_uuid": f"g{n}", "util": 0.5} for n in order])
        flood.samples([{"at": T0 + 60, "node": "n", "gpu_uuid": "g9"}])
        return sorted(key[1] for key in flood.gpu_merge.merge._first.slots)

    assert followed([3, 1, 2]) == followed([2, 3, 1]) == ["g1", "g2"]


def test_a_gpu_finds_room_when_others_have_been_silent_for_long() -> None:
    flood = Flood(max_series=1, evict_after_s=60.0)
    for at, name in ((0, "a"), (20, "b"), (200, "b"), (230, "b")):
        flood.samples([{"at": T0 + at, "node": "n", "gpu_uuid": name, "util": 0.5}])
    assert [key[1] for key in flood.gpu_merge.merge._first.slots] == ["b"]


def test_the_price_table_forgets_names_instead_of_keeping_all() -> None:
    flood = Flood()
    for start in (0, 5_000):
        flood.requests([request(n, T0, model=f"model-{n}") for n in range(start, start + 5_000)])
        flood.samples(
            [{"at": T0, "node": "n", "gpu_uuid": "g", "gpu_model": f"m-{n}"} for n in range(start, start + 5_000)]
        )
    assert len(flood.parts.book._tariffs) < 10_000
    assert len(flood.parts.book._gpus._known) < 10_000
