"""The steps of the dataflow as Bytewax operators know them: thin shells around engine-free parts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic

from bytewax.operators import StatefulBatchLogic

from flows.incidents.judge import Judge
from flows.pipeline import PipelineWatch
from flows.shard_detection import ShardDetection, W
from flows.sources.item import Item
from flows.state import pack, unpack_or_cold
from flows.windows.fold import RequestFold
from flows.windows.gpus import GpuMerge, fold_gpus
from flows.windows.merge import RequestMerge
from flows.windows.partials import Partials
from flows.windows.watermark import AFTER_ALL, SavedWatermarks, Watermarks
from schemas.columns import Costs, GpuColumns
from schemas.findings import Progress
from schemas.gpu_window import GpuWindows
from schemas.incident import Incident
from schemas.request_window import RequestWindows

JUDGE = "judge"
GPUS = "gpus"

_AT_ONCE = datetime.fromtimestamp(0, UTC)


@dataclass(slots=True)
class Priced:
    """A source's item with what its events cost."""

    item: Item[Any]
    costs: Costs | None


@dataclass(slots=True)
class PricedGpus:
    """A source's item with every sample's price per hour filled in where one is known."""

    item: Item[Any]
    columns: GpuColumns | None


@dataclass(slots=True)
class Closed:
    """Windows that a shard closed, and the event time up to which it has closed everything."""

    shard: str
    watermark_ns: int
    requests: list[RequestWindows]
    gpus: list[GpuWindows]
    dropped: int = 0
    """Requests that came too late for their windows because their partition had been idle."""
    folded: int = 0
    """Rows of windows whose dimensions read `other`, and GPUs left out of windows, because there are too many."""


def fold(priced: Priced, folder: RequestFold) -> Iterable[tuple[str, Partials]]:
    """One `Partials` per shard; shards without rows still hear of the watermark."""
    item, batch = priced.item, priced.item.batch
    parts = folder.fold(batch.columns, priced.costs) if batch is not None and priced.costs is not None else []
    split = folder.split(
        parts,
        partition=item.partition,
        watermark_ns=item.watermark_ns,
        rejected=batch.rejected if batch is not None else {},
        idle=item.idle,
    )
    return [(partials.shard, partials) for partials in split]


class WindowStep(StatefulBatchLogic[Partials, Closed, bytes]):
    """Merges the partials of one shard and closes its windows."""

    def __init__(self, merge: RequestMerge) -> None:
        self.merge = merge
        self.told = merge.dropped
        self.told_folded = merge.folded

    def on_batch(self, values: list[Partials]) -> tuple[Iterable[Closed], bool]:
        """Add, then close what the watermark has passed."""
        for partials in values:
            self.merge.add(partials)
        dropped, self.told = self.merge.dropped - self.told, self.merge.dropped
        windows = self.merge.advance()
        folded, self.told_folded = self.merge.folded - self.told_folded, self.merge.folded
        return [Closed(values[0].shard, self.merge.watermark_ns, windows, [], dropped, folded)], False

    def snapshot(self) -> bytes:
        """Envelope with the shard's state."""
        return self.merge.snapshot()


class DetectStep(StatefulBatchLogic[Closed, Progress, bytes], Generic[W]):
    """Runs a shard's detectors over its closed windows, a piece at a time.

    Between the pieces the engine moves what is there, so that a jump of event time over hundreds of rows of many series
    does not have to fit into memory.

    Parameters
    ----------
    make
        Builds the detection from its saved state.
    windows
        The windows of its stream.
    saved
        What `snapshot` returned.
    """

    FORMAT = 1

    def __init__(
        self,
        make: Callable[[bytes | None], ShardDetection[W]],
        windows: Callable[[Closed], list[W]],
        saved: bytes | None,
    ) -> None:
        state = unpack_or_cold("detect_step", self.FORMAT, saved, tuple[bytes, list[Closed]])
        detection, todo = state if state is not None else (None, [])
        self.detection = make(detection)
        self.windows = windows
        self.todo: deque[Closed] = deque(todo)
        self._pieces: Iterator[Progress] | None = None

    def on_batch(self, values: list[Closed]) -> tuple[Iterable[Progress], bool]:
        """Closed windows; what goes beyond a piece follows in `on_notify`."""
        self.todo.extend(values)
        return self._work(), False

    def on_notify(self) -> tuple[Iterable[Progress], bool]:
        """The next piece."""
        return self._work(), False

    def on_eof(self) -> tuple[Iterable[Progress], bool]:
        """There will be no next time."""
        out = []
        while self.todo:
            out += self._work()
        return out, False

    def notify_at(self) -> datetime | None:
        """At once, if there is more to do."""
        return _AT_ONCE if self.todo else None

    def snapshot(self) -> bytes:
        """Envelope with all banks, and what is still to be judged."""
        return pack("detect_step", self.FORMAT, (self.detection.snapshot(), list(self.todo)))

    def _work(self) -> list[Progress]:
        """All that is there, but end after the first full piece."""
        out: list[Progress] = []
        while self.todo:
            closed = self.todo[0]
            if self._pieces is None:
                self._pieces = self.detection.progress(closed.shard, self.windows(closed), closed.watermark_ns)
            piece = next(self._pieces)
            out.append(piece)
            if piece.watermark_ns < closed.watermark_ns:
                break
            self.todo.popleft()
            self._pieces = None
        return out


@dataclass(slots=True)
class GpuPart:
    """What one block contributes to the GPU windows."""

    partition: str
    watermark_ns: int
    idle: bool
    partials: Any


def fold_gpu_item(priced: PricedGpus, window_ns: int) -> list[tuple[str, GpuPart]]:
    """Partials of one block of GPU samples; all GPUs live under one key."""
    partials = fold_gpus(priced.columns, window_ns=window_ns) if priced.columns is not None else None
    item = priced.item
    return [(GPUS, GpuPart(item.partition, item.watermark_ns, item.idle, partials))]


class GpuWindowStep(StatefulBatchLogic[GpuPart, Closed, bytes]):
    """Merges GPU samples and closes their windows."""

    FORMAT = 1

    def __init__(self, merge: GpuMerge, partitions: Sequence[str]) -> None:
        self.merge = merge
        self.told_folded = merge.turned_away
        self.watermarks = Watermarks(partitions)

    def on_batch(self, values: list[GpuPart]) -> tuple[Iterable[Closed], bool]:
        """Add, then close what the watermark has passed."""
        for part in values:
            if part.partials is not None:
                self.merge.add(part.partials)
            self.watermarks.observe(part.partition, part.watermark_ns, idle=part.idle)
        now = self.watermarks.now_ns
        closed = self.merge.flush() if now >= AFTER_ALL else self.merge.advance(now)
        folded, self.told_folded = self.merge.turned_away - self.told_folded, self.merge.turned_away
        return [Closed(GPUS, now, [], closed, folded=folded)], False

    def snapshot(self) -> bytes:
        """Envelope with the watermarks, and the envelope of the merge in it."""
        return pack("gpu_window_step", self.FORMAT, (self.watermarks.snapshot(), self.merge.snapshot()))

    @classmethod
    def saved_parts(cls, saved: bytes | None) -> tuple[SavedWatermarks | None, bytes | None]:
        """Watermarks and the merge's envelope from a snapshot; nothing known if it cannot be read."""
        state = unpack_or_cold("gpu_window_step", cls.FORMAT, saved, tuple[SavedWatermarks, bytes])
        return state if state is not None else (None, None)


class JudgeStep(StatefulBatchLogic[Progress, Incident, bytes]):
    """The one place where findings become incidents."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def on_batch(self, values: list[Progress]) -> tuple[Iterable[Incident], bool]:
        """Revisions that could now be decided, in order."""
        return [incident for progress in values for incident in self.judge.on_progress(progress)], False

    def snapshot(self) -> bytes:
        """Envelope with tracks and open incidents."""
        return self.judge.snapshot()


class PipelineStep(StatefulBatchLogic[Item[Any], Incident, bytes]):
    """Watches the flow itself."""

    def __init__(self, watch: PipelineWatch) -> None:
        self.watch = watch

    def on_batch(self, values: list[Item[Any]]) -> tuple[Iterable[Incident], bool]:
        """Revisions that became due."""
        return [incident for item in values for incident in self.watch.on_item(item)], False

    def snapshot(self) -> bytes:
        """Envelope with the watch's judge."""
        return self.watch.snapshot()


class InOrder(StatefulBatchLogic[Closed, RequestWindows | GpuWindows, bytes]):
    """Puts the windows of all shards into one order that does not depend on who was first.

    A window is due at its end (version 1) or when the allowed lateness is over (version 2); it leaves when every
    shard has passed that time, sorted by (due, start, stream, version, shard).
    """

    def __init__(self, shards: Sequence[str], allowed_lateness_ns: int) -> None:
        self.progress = dict.fromkeys(shards, -AFTER_ALL)
        self.allowed_lateness_ns = allowed_lateness_ns
        self.waiting: list[tuple[int, int, int, int, str, RequestWindows | GpuWindows]] = []

    def on_batch(self, values: list[Closed]) -> tuple[Iterable[RequestWindows | GpuWindows], bool]:
        """Hold back, then let go what is due everywhere."""
        for closed in values:
            known = self.progress[closed.shard]
            self.progress[closed.shard] = max(known, closed.watermark_ns)
            both: list[RequestWindows | GpuWindows] = [*closed.requests, *closed.gpus]
            for w in both:
                due = w.end_ns + (self.allowed_lateness_ns if w.version > 1 else 0)
                stream = int(isinstance(w, GpuWindows))
                self.waiting.append((due, w.start_ns, stream, w.version, closed.shard, w))
        now = min(self.progress.values())
        self.waiting.sort(key=lambda e: e[:5])
        ready = [e[5] for e in self.waiting if e[0] <= now]
        self.waiting = [e for e in self.waiting if e[0] > now]
        return ready, False

    def snapshot(self) -> Any:
        """Only used by a replay, which starts over rather than resumes."""
        return None
