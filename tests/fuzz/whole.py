"""A message through the whole flow in one process: decode, price, fold, merge, detect, and every encoding of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import msgspec
import numpy as np
import pyarrow as pa

from flows.assembly import Parts
from flows.partition import RequestPartition
from flows.pricing import PriceBook
from flows.settings import Settings, Windows
from flows.window_lines import lines
from flows.windows.gpus import fold_gpus
from schemas.block import Block
from schemas.dead_letter import DeadLetter
from schemas.findings import Report
from schemas.formats import get_format
from schemas.gpu_window import GpuWindows
from schemas.request_window import RequestWindows
from sinks.clickhouse import finding_tables, tables, window_tables
from sinks.clickhouse.spool import decode, encode

MIN_SCORE = 0.5
"""Scores from here on are made into rows."""


@dataclass
class Outcome:
    """What the flow made of the messages."""

    tables: dict[str, list[pa.Table]] = field(default_factory=dict)
    """By name: rows as they go to ClickHouse."""
    requests: list[RequestWindows] = field(default_factory=list)
    gpus: list[GpuWindows] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    def put(self, name: str, table: pa.Table | None) -> None:
        """Keep rows."""
        if table is not None and table.num_rows:
            self.tables.setdefault(name, []).append(table)

    def encoded(self) -> dict[str, pa.Table]:
        """All rows by table, after a way through the encoding that the writer and its spool use."""
        return {name: decode(encode(found)) for name, found in self.tables.items()}


@cache
def book() -> PriceBook:
    """The price table, read once."""
    return PriceBook.load(None)


def run(name: str, blocks: Sequence[Sequence[bytes]], *, stamp_ms: int = -1, windows: Windows | None = None) -> Outcome:
    """Send blocks of messages of one format through the flow, to the end of the input."""
    parts = Parts(Settings(windows=windows or Windows(shards=1)), book())
    out = Outcome()
    reader = parts.partition("t", 3, get_format(name), None)
    offset = 0
    shards = {str(n): (parts.merge(["t/3"], None), parts.detect_requests(None)) for n in range(parts.fold.shards)}
    gpu_merge, gpu_detection = parts.merge_gpus(None), parts.detect_gpus(None)

    def closed(shard: str, found: Sequence[RequestWindows], watermark_ns: int) -> None:
        out.requests.extend(found)
        for report in shards[shard][1].on_windows(shard, found, watermark_ns):
            out.reports.append(report)
            out.put("scores", finding_tables.scores(report, MIN_SCORE))

    def closed_gpus(found: Sequence[GpuWindows], watermark_ns: int) -> None:
        out.gpus.extend(found)
        for report in gpu_detection.on_windows("gpus", found, watermark_ns):
            out.reports.append(report)
            out.put("scores", finding_tables.scores(report, MIN_SCORE))

    for messages in blocks:
        offsets = range(offset, offset + len(messages))
        offset += len(messages)
        batch = reader.feed(Block("t", 3, offsets, messages, [stamp_ms] * len(messages)))
        out.dead.extend(batch.dead)
        if isinstance(reader, RequestPartition):
            costs = parts.book.price(batch.columns)  # type: ignore[arg-type]
            out.put("requests", tables.requests(batch.columns, costs, "v"))  # type: ignore[arg-type]
            folded = parts.fold.fold(batch.columns, costs)  # type: ignore[arg-type]
            for partials in parts.fold.split(
                folded, partition="t/3", watermark_ns=batch.watermark_ns, rejected=batch.rejected
            ):
                merge, _ = shards[partials.shard]
                merge.add(partials)
                closed(partials.shard, merge.advance(), merge.watermark_ns)
        else:
            columns = parts.book.price_gpus(batch.columns)  # type: ignore[arg-type]
            out.put("gpu_samples", tables.gpu_samples(columns))
            gpu_merge.add(fold_gpus(columns, window_ns=parts.window_ns))
            closed_gpus(gpu_merge.advance(batch.watermark_ns), batch.watermark_ns)
    for shard, (merge, _) in shards.items():
        closed(shard, merge.flush(), merge.watermark_ns)
    closed_gpus(gpu_merge.flush(), gpu_merge.watermark_ns)
    for found in out.requests:
        out.put("request_windows", window_tables.request_windows(found))
    for gpus in out.gpus:
        out.put("gpu_windows", window_tables.gpu_windows(gpus))
    for each in (*out.requests, *out.gpus):
        assert (each.sums >= 0).all(), "a sum has overflowed"
        assert all(msgspec.json.decode(line) for line in lines(each))
    out.put("dead_letters", finding_tables.dead_letters(out.dead) if out.dead else None)
    for report in out.reports:
        for finding in report.findings:
            assert np.isfinite(finding.score).all(), finding.detector
    out.encoded()
    return out
