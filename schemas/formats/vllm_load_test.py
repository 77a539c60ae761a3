"""Formats `vllm-load-test`, `-gpu` and `-engine`: a load test of a vLLM server (github.com/liao4s/BurstGPT_test), CSV.

The server (Llama-3.2-1B on one GPU of 24 GiB) was tried with faster and faster replays of the same 500 requests. All
three files tell time by one monotonic clock, which `TRACE_START_NS` and `CLOCK_AT_START_S` turn into dates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, BinaryIO, ClassVar

from msgspec import Meta, Struct

from schemas.formats.base import Stream
from schemas.formats.csv_lines import csv_lines, fields, typed
from schemas.gpu_event import GpuEvent, NonNegative
from schemas.request_event import Count, RequestEvent

TRACE_START_NS = 1_729_987_200 * 10**9
"""2024-10-27T00:00:00Z. The day is the publishers', the time of day is ours."""

CLOCK_AT_START_S = 14_592_600
"""What the server's monotonic clock is taken to read at `TRACE_START_NS` (the first record reads 14,592,657.8)."""

MODEL = "Llama-3.2-1B"
NODE = "vllm-load-test"

_MIB = 1024 * 1024

_Clock = Annotated[float, Meta(ge=CLOCK_AT_START_S, le=1e9)]
_Percent = Annotated[float, Meta(ge=0, le=100)]
_Seconds = Annotated[float, Meta(ge=0, le=1e9)]
_Mebibytes = Annotated[float, Meta(ge=0, le=1e9)]
_Celsius = Annotated[float, Meta(ge=-100, le=1000)]


def at_ns(clock_s: float) -> int:
    """Date, in nanoseconds since the epoch, of a reading of the server's monotonic clock."""
    return TRACE_START_NS + round((clock_s - CLOCK_AT_START_S) * 1e9)


class _RequestRow(Struct):
    load_scale: Count
    event_id: Count
    out_len: Count
    out_len_expected: Count
    in_len: Count
    sampled_in_num: Count
    sampled_out_len: Count
    first_chunk_time: _Seconds
    total_chunk_time: _Seconds
    record_time: _Clock
    gpu_used_mem_percent: float
    gpu_used_mem: float
    gpu_utilization: float
    gpu_temperature: float


class VllmLoadTestFormat:
    """One row is one answered request; `at` is its end. The load scale becomes `deployment` (`scale-100`, ...).

    `output_tokens` stays `None`: `out_len` counts characters, those of the prompt included. The GPU readings in the row
    are left to `vllm-load-test-gpu`. Only answered requests were recorded, hence status 200.
    """

    name: ClassVar[str] = "vllm-load-test"
    stream: ClassVar[Stream] = "requests"
    header: ClassVar[tuple[str, ...]] = (
        "load_scale", "event_id", "out_len", "out_len_expected", "in_len", "sampled_in_num", "sampled_out_len",
        "first_chunk_time", "total_chunk_time", "record_time", "GPU_used_mem_percent", "GPU_used_mem",
        "GPU_utilization", "GPU_temperature",
    )  # fmt: skip

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Lines behind the header; the file is in order of time."""
        return csv_lines(self.name, self.header, file)

    def decode(self, payload: bytes) -> tuple[RequestEvent]:
        """Decode one row."""
        row = typed(fields(payload), _RequestRow)
        return (
            RequestEvent(
                at=at_ns(row.record_time),
                event_id=f"{NODE}-{row.load_scale}-{row.event_id}",
                provider="vllm",
                model=MODEL,
                deployment=f"scale-{row.load_scale}",
                status=200,
                stream=True,
                input_tokens=row.in_len,
                latency_ms=row.total_chunk_time * 1e3,
                ttft_ms=row.first_chunk_time * 1e3,
            ),
        )


class _GpuRow(Struct):
    load_scale: Count
    monitor_id: Count
    record_time: _Clock
    gpu_used_mem: _Mebibytes
    gpu_total_mem: _Mebibytes
    gpu_utilization: _Percent
    gpu_temperature: _Celsius


class VllmLoadTestGpuFormat:
    """One row is one reading of the GPU, every 0.5 s."""

    name: ClassVar[str] = "vllm-load-test-gpu"
    stream: ClassVar[Stream] = "gpus"
    header: ClassVar[tuple[str, ...]] = (
        "load_scale", "monitor_id", "record_time", "GPU_used_mem", "GPU_total_mem", "GPU_utilization",
        "GPU_temperature",
    )  # fmt: skip

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Lines behind the header; the file is in order of time."""
        return csv_lines(self.name, self.header, file)

    def decode(self, payload: bytes) -> tuple[GpuEvent]:
        """Decode one row: MiB become bytes, percent a ratio."""
        row = typed(fields(payload), _GpuRow)
        return (
            GpuEvent(
                at=at_ns(row.record_time),
                node=NODE,
                gpu_index=0,
                model=MODEL,
                util=row.gpu_utilization / 100,
                util_source="gpu_util",
                memory_used_bytes=round(row.gpu_used_mem * _MIB),
                memory_total_bytes=round(row.gpu_total_mem * _MIB),
                temperature_c=row.gpu_temperature,
            ),
        )


class _EngineRow(Struct):
    load_scale: Count
    timestamp: _Clock
    prompt_throughput: NonNegative
    generation_throughput: NonNegative
    num_running: NonNegative
    num_swapped: NonNegative
    num_pending: NonNegative
    gpu_kvcache_usage: _Percent
    cpu_kvcache_usage: _Percent


class VllmLoadTestEngineFormat:
    """One row is one reading of the engine, every 0.5 s.

    Swapped requests were started and then put aside for want of memory; they wait like pending ones and are counted
    with them (the published test has none). `tokens_per_s` is the generation throughput, without the prompt's.
    """

    name: ClassVar[str] = "vllm-load-test-engine"
    stream: ClassVar[Stream] = "gpus"
    header: ClassVar[tuple[str, ...]] = (
        "load_scale", "timestamp", "prompt_throughput", "generation_throughput", "num_running", "num_swapped",
        "num_pending", "gpu_kvcache_usage", "cpu_kvcache_usage",
    )  # fmt: skip

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Lines behind the header; the file is in order of time."""
        return csv_lines(self.name, self.header, file)

    def decode(self, payload: bytes) -> tuple[GpuEvent]:
        """Decode one row."""
        row = typed(fields(payload), _EngineRow)
        return (
            GpuEvent(
                at=at_ns(row.timestamp),
                node=NODE,
                gpu_index=0,
                model=MODEL,
                requests_running=row.num_running,
                requests_waiting=row.num_pending + row.num_swapped,
                kv_cache_usage=row.gpu_kvcache_usage / 100,
                tokens_per_s=row.generation_throughput,
            ),
        )
