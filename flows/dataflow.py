"""The dataflow, top to bottom, as Bytewax runs it. No logic here; the named functions have it.

::

    requests ─> price ─> fold ─> windows ─> detect ─┐
                                                    ├─> judge ─> incidents
    gpus ─────> price ─> fold ─> windows ─> detect ─┘

Step ids name saved state: renaming one forgets it. Those of windows and detectors carry the number of shards and the
window's length (`Parts.shape`), so that changed settings start them cold while positions are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import FixedPartitionedSource
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from flows.assembly import Parts
from flows.outputs import Outputs
from flows.pipeline import PIPELINE
from flows.recovery_store import FLOW
from flows.sources.item import Item
from flows.steps import (
    GPUS,
    JUDGE,
    Closed,
    DetectStep,
    GpuWindowStep,
    InOrder,
    JudgeStep,
    PipelineStep,
    Priced,
    PricedGpus,
    WindowStep,
    fold,
    fold_gpu_item,
)
from schemas.dead_letter import DeadLetter
from schemas.findings import Progress

V = TypeVar("V")
Source = FixedPartitionedSource[Any, Any]


def build(
    requests: Source | None, gpus: Source | None, parts: Parts, outputs: Outputs, *, process: str = "0"
) -> Dataflow:
    """The whole flow.

    Parameters
    ----------
    requests, gpus
        Sources; None leaves that half out.
    parts
        Everything with logic in it, made from the settings.
    outputs
        Where results go.
    process
        Name of this process in a cluster: results leave the process that made them.
    """
    flow = Dataflow(FLOW)
    closed: list[Stream[tuple[str, Closed]]] = []
    progress: list[Stream[tuple[str, Progress]]] = []
    dead: list[Stream[DeadLetter]] = []
    inputs: list[Stream[Item[Any]]] = []

    def write(step_id: str, stream: Stream[Any], to: Sequence[Callable[[Sequence[Any]], object]]) -> None:
        if to:
            keyed = op.map(f"{step_id}_here", stream, lambda value: (process, value))
            op.output(step_id, keyed, Write(process, to, outputs.checkpoint))

    if requests is not None:
        members = requests.list_parts()
        events = op.input("requests", flow, requests)  # Item[RequestBatch]
        inputs.append(events)
        priced = op.map("price", events, parts.price)  # Priced
        partials = op.flat_map("fold", priced, lambda p: fold(p, parts.fold))  # (shard, Partials)
        windows = op.stateful_batch(
            f"windows_{parts.shape}", partials, lambda saved: WindowStep(parts.merge(members, saved))
        )
        reports = op.stateful_batch(
            f"detect_{parts.shape}",
            windows,
            lambda saved: DetectStep(parts.detect_requests, lambda c: c.requests, saved),
        )
        write("to_requests", op.filter("with_requests", priced, _has_requests), outputs.requests)
        closed.append(windows)
        progress.append(reports)
        dead.append(op.flat_map("unusable_requests", priced, lambda p: p.item.batch.dead if p.item.batch else ()))
    if gpus is not None:
        gpu_members = gpus.list_parts()
        samples = op.input("gpus", flow, gpus)  # Item[GpuBatch]
        inputs.append(samples)
        priced_gpus = op.map("price_gpus", samples, parts.price_gpus)  # PricedGpus
        gpu_partials = op.flat_map("fold_gpus", priced_gpus, lambda p: fold_gpu_item(p, parts.window_ns))
        gpu_windows = op.stateful_batch(
            f"gpu_windows_{parts.shape}", gpu_partials, lambda saved: _gpu_window_step(parts, gpu_members, saved)
        )
        gpu_reports = op.stateful_batch(
            f"detect_gpus_{parts.shape}",
            gpu_windows,
            lambda saved: DetectStep(parts.detect_gpus, lambda c: c.gpus, saved),
        )
        write("to_gpus", op.filter("with_gpus", priced_gpus, _has_gpus), outputs.gpus)
        closed.append(gpu_windows)
        progress.append(gpu_reports)
        dead.append(op.flat_map("unusable_gpus", priced_gpus, lambda p: p.item.batch.dead if p.item.batch else ()))

    shards = ([f"{i}" for i in range(parts.fold.shards)] if requests is not None else []) + (
        [GPUS] if gpus is not None else []
    )
    all_closed = op.map("closed_windows", op.merge("all_windows", *closed), lambda kv: kv[1])
    all_progress = op.map("reports", op.merge("all_reports", *progress), lambda kv: kv[1])
    to_judge = op.map("to_judge", all_progress, lambda p: (JUDGE, p))
    incidents = op.stateful_batch("judge", to_judge, lambda saved: _judge_step(parts, shards, outputs, saved))

    beats = [op.map(f"beat_{i}", items, _beat) for i, items in enumerate(inputs)]
    watch = op.stateful_batch(
        "pipeline", op.merge("beats", *beats), lambda saved: _pipeline_step(parts, outputs, saved)
    )
    all_incidents = op.merge("all_incidents", incidents, watch)

    write("to_windows", all_closed, outputs.closed)
    write("to_scores", all_progress, outputs.progress)
    write("to_on_call", op.map("incidents", all_incidents, lambda kv: kv[1]), outputs.incidents)
    write("to_dead_letters", op.merge("unusable", *dead), outputs.dead)
    if outputs.ordered_windows is not None:
        in_line = op.map("to_line", all_closed, lambda c: ("line", c))
        ordered = op.stateful_batch("in_order", in_line, lambda _: InOrder(shards, parts.allowed_lateness_ns))
        write("to_file", op.map("ordered", ordered, lambda kv: kv[1]), [outputs.ordered_windows])
    return flow


def _judge_step(parts: Parts, shards: Sequence[str], outputs: Outputs, saved: Any | None) -> JudgeStep:
    step = JudgeStep(parts.judge(shards, saved))
    outputs.restored([o.incident for o in step.judge.open.values()])
    return step


def _pipeline_step(parts: Parts, outputs: Outputs, saved: Any | None) -> PipelineStep:
    step = PipelineStep(parts.watch(outputs.pressure, outputs.troubled, saved))
    outputs.restored([o.incident for o in step.watch.judge.open.values()])
    return step


def _gpu_window_step(parts: Parts, members: Sequence[str], saved: Any | None) -> GpuWindowStep:
    marks, merge = GpuWindowStep.saved_parts(saved)
    step = GpuWindowStep(parts.merge_gpus(merge), members)
    if marks is not None:
        step.watermarks.restore(marks)
    return step


def _beat(item: Item[Any]) -> tuple[str, Item[Any]]:
    """Only what the watch over the flow itself needs."""
    return PIPELINE, replace(item, batch=None)


def _has_requests(priced: Priced) -> bool:
    return priced.costs is not None


def _has_gpus(priced: PricedGpus) -> bool:
    return priced.columns is not None


class Write(FixedPartitionedSink[V, None]):
    """Hands batches to functions, within the process that made them.

    Parameters
    ----------
    process
        Name of this process.
    to
        Functions over a batch.
    checkpoint
        Called at the end of every epoch.
    """

    def __init__(
        self, process: str, to: Sequence[Callable[[Sequence[V]], object]], checkpoint: Callable[[], None]
    ) -> None:
        self.process, self.to, self.checkpoint = process, to, checkpoint

    def list_parts(self) -> list[str]:
        """One per process. Padded, since the engine numbers parts by the order of their names."""
        return [self.process.zfill(6)]

    def part_fn(self, item_key: str) -> int:
        """A process is its own number."""
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StatefulSinkPartition[V, None]:
        """Nothing to open: the functions are ready."""
        return _Writing(self.to, self.checkpoint)


class _Writing(StatefulSinkPartition[V, None]):
    def __init__(self, to: Sequence[Callable[[Sequence[V]], object]], checkpoint: Callable[[], None]) -> None:
        self.to, self.checkpoint = to, checkpoint

    def write_batch(self, values: list[V]) -> None:
        for write in self.to:
            write(values)

    def snapshot(self) -> None:
        self.checkpoint()
