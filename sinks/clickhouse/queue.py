"""Rows on their way to the database: gathered per table, sealed into batches, held until they are inserted."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pyarrow as pa

from sinks.clickhouse.spool import SpoolFile, digest_of, encode

RAW_TABLES: frozenset[str] = frozenset({"requests", "gpu_samples"})
"""Large tables: they give way to windows, scores and incidents, which people wait for."""


@dataclass(slots=True, eq=False)
class Batch:
    """Rows of one table that are inserted together."""

    table: str
    rows: int
    size: int
    """Bytes of the encoded rows."""
    digest: str
    payload: bytes | None
    """The encoded rows; None while they are on disk only."""
    file: SpoolFile | None
    """Where they are durable, if they are."""
    done: bool = False
    attempts: int = 0
    not_before: float = 0.0
    """Monotonic time before which it is not tried again."""


@dataclass(slots=True)
class Gathering:
    """Rows of one table that wait for others."""

    since: float = 0.0
    rows: int = 0
    size: int = 0
    pieces: list[pa.Table] = field(default_factory=list)


class Queue:
    """Thread-safe order of what is not inserted yet.

    Parameters
    ----------
    batch_rows
        Rows at which a batch is sealed.
    max_delay_s
        Age at which it is sealed with fewer.
    """

    def __init__(self, *, batch_rows: int, max_delay_s: float) -> None:
        self.changed = threading.Condition()
        """Notified whenever something arrives, becomes durable, is inserted, or fails."""
        self.memory_bytes = 0
        self._batch_rows = batch_rows
        self._max_delay_s = max_delay_s
        self._gathering: dict[str, Gathering] = {}
        self._batches: list[Batch] = []
        self._volatile: dict[int, Batch] = {}
        """Those that are not durable, by `id`, oldest first: with a long backlog all others are."""
        self._sealing = threading.RLock()
        self._flush = False
        self._old_turn = True

    # ------------------------------------------------------------------ arrival
    def add(self, table: str, piece: pa.Table, now: float) -> None:
        """Take rows of one table."""
        size = piece.nbytes
        with self.changed:
            gathering = self._gathering.setdefault(table, Gathering(since=now))
            gathering.pieces.append(piece)
            gathering.rows += piece.num_rows
            gathering.size += size
            self.memory_bytes += size
            self.changed.notify_all()

    def put(self, batch: Batch) -> None:
        """Take a batch that is sealed already."""
        with self.changed:
            self._batches.append(batch)
            if batch.file is None:
                self._volatile[id(batch)] = batch
            self.memory_bytes += 0 if batch.payload is None else batch.size
            self.changed.notify_all()

    def flush(self) -> None:
        """Ask for everything gathered to be sealed now."""
        with self.changed:
            self._flush = bool(self._gathering)
            self.changed.notify_all()

    def due_in(self, now: float) -> float | None:
        """Seconds until something has to be sealed (0 or less: now); None if nothing is gathered."""
        if not self._gathering:
            return None
        if self._flush or any(g.rows >= self._batch_rows for g in self._gathering.values()):
            return 0.0
        return min(g.since for g in self._gathering.values()) + self._max_delay_s - now

    def seal(self, *, everything: bool, now: float) -> None:
        """Turn gathered rows into batches: all, or those that are due.

        Encoding happens outside the main lock, so producers need not wait for it.
        """
        with self._sealing:
            with self.changed:
                everything = everything or self._flush
                self._flush = False  # a request that comes from now on may concern rows that come from now on
                names = [
                    name
                    for name, g in self._gathering.items()
                    if everything or g.rows >= self._batch_rows or now - g.since >= self._max_delay_s
                ]
            for name in names:
                with self.changed:
                    gathering = self._gathering[name]
                    pieces = list(gathering.pieces)
                batches = [self._encode(name, group) for group in self._split(pieces)]
                with self.changed:
                    del gathering.pieces[: len(pieces)]
                    taken_rows = sum(piece.num_rows for piece in pieces)
                    taken_size = sum(piece.nbytes for piece in pieces)
                    gathering.rows -= taken_rows
                    gathering.size -= taken_size
                    gathering.since = now
                    self.memory_bytes -= taken_size
                    if not gathering.pieces:
                        del self._gathering[name]
                    for batch in batches:
                        self.put(batch)

    def _split(self, pieces: list[pa.Table]) -> list[list[pa.Table]]:
        groups: list[list[pa.Table]] = []
        rows = self._batch_rows
        for piece in pieces:
            if rows + piece.num_rows > self._batch_rows:
                groups.append([])
                rows = 0
            groups[-1].append(piece)
            rows += piece.num_rows
        return groups

    @staticmethod
    def _encode(table: str, pieces: list[pa.Table]) -> Batch:
        payload = encode(pieces)
        rows = sum(piece.num_rows for piece in pieces)
        return Batch(table, rows, len(payload), digest_of(payload), payload, None)

    # ------------------------------------------------------------------ choice
    def choose(self, now: float, held: dict[str, float]) -> list[Batch]:
        """Batches of one table to be inserted together next; empty if none may be tried now.

        Small tables go before large ones. Batches on disk and in memory take turns, so that a long backlog does not
        keep fresh rows waiting. A batch that failed before is tried alone.

        Parameters
        ----------
        now
            Monotonic time.
        held
            By table: time before which it is left alone.
        """
        ready = [b for b in self._batches if b.not_before <= now and held.get(b.table, 0.0) <= now]
        old = [b for b in ready if b.payload is None]
        fresh = [b for b in ready if b.payload is not None]
        pool = (old or fresh) if self._old_turn else (fresh or old)
        if not pool:
            return []
        self._old_turn = not self._old_turn
        first = min(pool, key=lambda b: b.table in RAW_TABLES)
        group = [first]
        rows = first.rows
        if not first.attempts:
            for batch in pool:
                if batch is first or batch.table != first.table or batch.attempts:
                    continue
                if rows + batch.rows > self._batch_rows:
                    break
                group.append(batch)
                rows += batch.rows
        return group

    def next_try_in(self, now: float, held: dict[str, float]) -> float | None:
        """Seconds until a waiting batch may be tried; None if there is none."""
        times = [max(b.not_before, held.get(b.table, 0.0)) for b in self._batches]
        return min(times) - now if times else None

    # ------------------------------------------------------------------ fate
    def unsaved(self, batch: Batch) -> bytes | None:
        """The encoded rows of a batch that is neither inserted nor durable, otherwise None."""
        with self.changed:
            return None if batch.done or batch.file is not None else batch.payload

    def stored(self, batch: Batch, file: SpoolFile) -> bool:
        """Note that a batch is durable. Returns False if the server was faster and the file is not needed."""
        with self.changed:
            if batch.done:
                return False
            batch.file = file
            self._volatile.pop(id(batch), None)
            self.changed.notify_all()
            return True

    def release(self, batch: Batch) -> None:
        """Give back the memory of a durable batch."""
        with self.changed:
            if batch.file is not None and batch.payload is not None:
                batch.payload = None
                self.memory_bytes -= batch.size

    def finish(self, batches: list[Batch]) -> list[SpoolFile]:
        """Forget batches. Returns their files, which are not needed any more."""
        with self.changed:
            files = []
            for batch in batches:
                batch.done = True
                self._volatile.pop(id(batch), None)
                if batch.payload is not None:
                    self.memory_bytes -= batch.size
                    batch.payload = None
                if batch.file is not None:
                    files.append(batch.file)
            gone = set(map(id, batches))
            self._batches = [b for b in self._batches if id(b) not in gone]
            self.changed.notify_all()
            return files

    # ------------------------------------------------------------------ questions
    def batches(self) -> list[Batch]:
        """Sealed batches, oldest first."""
        with self.changed:
            return list(self._batches)

    def volatile(self) -> list[Batch]:
        """Sealed batches that are neither inserted nor on disk, oldest first."""
        with self.changed:
            return list(self._volatile.values())

    def is_durable(self) -> bool:
        """Whether everything is inserted or on disk."""
        with self.changed:
            return not self._gathering and not self._volatile

    def is_empty(self) -> bool:
        """Whether everything is inserted."""
        with self.changed:
            return not self._gathering and not self._batches

    def status(self) -> dict[str, int]:
        """Rows and bytes that wait."""
        with self.changed:
            gathered = sum(g.rows for g in self._gathering.values())
            return {
                "queued_rows": gathered + sum(b.rows for b in self._batches),
                "queued_bytes": self.memory_bytes,
                "spooled_files": sum(b.file is not None for b in self._batches),
            }
