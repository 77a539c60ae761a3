"""What a source hands to the flow: one decoded block of one partition, with its watermark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from flows.partition import GpuBatch, RequestBatch

Batch = TypeVar("Batch", RequestBatch, GpuBatch)


@dataclass(slots=True)
class Item(Generic[Batch]):
    """One step of one partition.

    Parameters
    ----------
    partition
        `topic/partition`.
    batch
        Decoded events; None where only the watermark moved (idle, or the end of a file).
    watermark_ns
        The partition's watermark after it.
    idle
        The partition is silent and caught up.
    lag
        Messages that still wait in the partition, where known.
    lost
        Messages that were gone before this item could be read: retention was faster.
    read_at_ns
        The clock when the block was read; None in a replay, which has no clock.
    """

    partition: str
    batch: Batch | None
    watermark_ns: int
    idle: bool = False
    lag: int | None = None
    lost: int = 0
    read_at_ns: int | None = None
