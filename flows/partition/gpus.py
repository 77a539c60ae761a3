"""The reader of one partition of GPU samples; see `flows.partition.requests` for the rules it shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec import Struct

from flows.partition.columns import Filter, Numbers, TextColumn, amounts, flags, real_numbers, whole_numbers
from flows.partition.lateness import Progress
from flows.partition.position import Judged, Position, Rows, SavedPosition
from flows.partition.reading import Reader
from flows.partition.refusals import Rejections
from flows.partition.request_rows import AMOUNT
from flows.state import pack, unpack
from schemas.block import Block
from schemas.columns import GPU_DIMENSIONS, GpuColumns
from schemas.dead_letter import DeadLetter
from schemas.errors import BadSettings, Reason
from schemas.formats.base import Format
from schemas.formats.gpu import NO_GPU_IDENTITY
from schemas.gpu_event import GpuEvent

COMPONENT = "gpu-partition"
FORMAT = 1
"""Raised with every change of what the saved state means."""


@dataclass(slots=True)
class GpuBatch:
    """What one block of GPU messages came to. Fields mean what they mean in `RequestBatch`."""

    columns: GpuColumns
    dead: list[DeadLetter]
    watermark_ns: int
    rejected: dict[int, int] = field(default_factory=dict)
    unknown_fields: dict[str, int] = field(default_factory=dict)
    offset: int = -1


class _Saved(Struct, array_like=True):
    position: SavedPosition


class GpuPartition:
    """Reads one partition of GPU samples. Parameters, errors and rules are those of `RequestPartition`."""

    def __init__(
        self,
        topic: str,
        partition: int,
        format: Format,
        *,
        window_ns: int,
        disorder_ns: int,
        allowed_lateness_ns: int,
        max_clock_ahead_ns: int,
        max_message_bytes: int = 1_048_576,
        state: bytes | None = None,
    ) -> None:
        if format.stream != "gpus":
            raise BadSettings(f"format {format.name} holds no GPU samples; topic {topic} needs a GPU format")
        saved = unpack(COMPONENT, FORMAT, state, _Saved) if state is not None else None
        self.topic, self.partition = topic, partition
        self._reader = Reader(format, GpuEvent, max_message_bytes)
        self._max_clock_ahead_ns = max_clock_ahead_ns
        self._position = Position(Progress(window_ns, disorder_ns, allowed_lateness_ns), Rejections(window_ns))
        if saved:
            self._position.restore(saved.position)

    @property
    def offset(self) -> int:
        """Next position to read; -1 while nothing was read."""
        return self._position.offset

    @property
    def watermark_ns(self) -> int:
        """The partition's watermark."""
        return self._position.progress.watermark_ns

    def snapshot(self) -> bytes:
        """State for a restart after the last block."""
        return pack(COMPONENT, FORMAT, _Saved(self._position.save()))

    def feed(self, block: Block) -> GpuBatch:
        """Read the partition's next messages. Never raises for what they hold."""
        rows = Rows(block, self._max_clock_ahead_ns)
        columns = GpuRows()
        for piece in self._reader.pieces(block, rows.refusals):
            at, refused = columns.add(piece.events)
            rows.add(piece, at, refused)
        keep = rows.finish()
        judged = self._position.judge(rows)
        return GpuBatch(
            columns=columns.finish(keep, rows, judged),
            dead=judged.dead,
            watermark_ns=self.watermark_ns,
            rejected=judged.rejected,
            unknown_fields=self._reader.unknown_fields(block),
            offset=self._position.offset,
        )


class GpuRows:
    """Gathers the samples of one block piece by piece."""

    def __init__(self) -> None:
        self._texts = {name: TextColumn() for name in GPU_DIMENSIONS}
        self._numbers = Numbers()

    def add(self, e: list[GpuEvent]) -> tuple[list[Any], dict[int, tuple[Reason, str]]]:
        """Append samples; as `RequestRows.add`."""
        index = [None if x.gpu_index is None else str(x.gpu_index) for x in e]
        uuid = [x.gpu_uuid for x in e]
        texts: dict[str, list[Any]] = {
            "cluster": [x.cluster for x in e],
            "node": [x.node for x in e],
            "gpu_uuid": uuid,
            "gpu_index": index,
            "mig_id": [x.mig_id for x in e],
            "gpu_model": [x.gpu_model for x in e],
            "pool": [x.pool for x in e],
            "namespace": [x.namespace for x in e],
            "pod": [x.pod for x in e],
            "team": [x.team for x in e],
            "model": [x.model for x in e],
            "util_source": [x.util_source for x in e],
        }
        for name, column in self._texts.items():
            column.add(texts[name])
        prices, bad = amounts([x.usd_per_hour for x in e])
        refused = {row: (Reason.OUT_OF_RANGE, AMOUNT.format("usd_per_hour")) for row in bad}
        for row, (one, other) in enumerate(zip(uuid, index, strict=True)):
            if not one and other is None:
                refused[row] = (Reason.MISSING_FIELD, NO_GPU_IDENTITY)
        add = self._numbers.add
        add("usd_per_hour_pico", prices)
        add("util", real_numbers([x.util for x in e]))
        add("memory_used_bytes", whole_numbers([x.memory_used_bytes for x in e]))
        add("memory_total_bytes", whole_numbers([x.memory_total_bytes for x in e]))
        add("power_w", real_numbers([x.power_w for x in e]))
        add("power_limit_w", real_numbers([x.power_limit_w for x in e]))
        add("temperature_c", real_numbers([x.temperature_c for x in e]))
        add("xid", whole_numbers([x.xid for x in e]))
        add("ecc_uncorrected", whole_numbers([x.ecc_uncorrected for x in e]))
        add("throttled", flags([x.throttled for x in e]))
        add("requests_running", real_numbers([x.requests_running for x in e]))
        add("requests_waiting", real_numbers([x.requests_waiting for x in e]))
        add("kv_cache_usage", real_numbers([x.kv_cache_usage for x in e]))
        add("preemptions", whole_numbers([x.preemptions for x in e]))
        add("tokens_per_s", real_numbers([x.tokens_per_s for x in e]))
        return [x.at for x in e], refused

    def finish(self, keep: Filter, rows: Rows, judged: Judged) -> GpuColumns:
        """All kept rows."""
        numbers = self._numbers

        def whole(name: str) -> Any:
            return numbers.finish(name, np.int64, keep)

        def real(name: str) -> Any:
            return numbers.finish(name, np.float64, keep)

        return GpuColumns(
            topic=rows.block.topic,
            partition=rows.block.partition,
            offsets=rows.offsets,
            positions=rows.positions,
            at_ns=rows.at_ns,
            lateness=judged.lateness,
            dims={name: column.finish(keep) for name, column in self._texts.items()},
            util=real("util"),
            memory_used_bytes=whole("memory_used_bytes"),
            memory_total_bytes=whole("memory_total_bytes"),
            power_w=real("power_w"),
            power_limit_w=real("power_limit_w"),
            temperature_c=real("temperature_c"),
            xid=whole("xid"),
            ecc_uncorrected=whole("ecc_uncorrected"),
            throttled=numbers.finish("throttled", np.int8, keep),
            requests_running=real("requests_running"),
            requests_waiting=real("requests_waiting"),
            kv_cache_usage=real("kv_cache_usage"),
            preemptions=whole("preemptions"),
            tokens_per_s=real("tokens_per_s"),
            usd_per_hour_pico=whole("usd_per_hour_pico"),
        )
