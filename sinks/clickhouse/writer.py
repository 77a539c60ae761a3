"""The writer: takes columns, inserts them in the background, and spools what the database cannot take yet."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog
from clickhouse_connect.driver.client import Client

from schemas.columns import Costs, GpuColumns, RequestColumns
from schemas.dead_letter import DeadLetter
from schemas.errors import DeliveryFailed
from schemas.findings import Report
from schemas.gpu_window import GpuWindows
from schemas.incident import Incident
from schemas.request_window import RequestWindows
from sinks.clickhouse import finding_tables, tables, window_tables
from sinks.clickhouse.loader import Loader
from sinks.clickhouse.queue import Batch, Queue
from sinks.clickhouse.spool import Spool, SpoolFull

log = structlog.get_logger(__name__)

MEMORY_BYTES = 256_000_000
"""Rows held in memory beyond which they go to disk."""

PATIENCE_S = 0.05
"""How long a checkpoint waits for a healthy server before it writes to disk instead."""

SAID_AGAIN_S = 60.0
"""Producers that wait again within this time wait for the same reason: it is not logged once more."""

JOIN_TIMEOUT_S = 5.0
"""How long `close` waits for an insert that is under way."""


class Writer:
    """Hands rows to ClickHouse without ever waiting for it, up to the limits of memory and disk.

    Rows are turned into Arrow at once, gathered per table, and inserted by one background thread. What the server
    cannot take stays in memory, then on disk; when `spool_bytes` are used up, producers wait (back pressure). Tables
    replace by identity and every insert carries a token made from its content, so a batch that is sent twice counts
    once. Methods may be called from several threads. Columns must not be changed after they were handed over.

    Parameters
    ----------
    client_factory
        Makes a connection; called in the background thread, again after each broken connection.
    database
        Database of the tables; by default that of the connection, which its URL names.
    spool_dir
        Directory for waiting rows; batches that an earlier run left there are loaded first.
    spool_bytes
        Disk that they may use.
    batch_rows
        Rows per insert, at most (a single larger block is not split).
    max_delay_s
        How long a row waits for others, at most.
    memory_bytes
        Memory that waiting rows may use.
    monotonic
        Clock in seconds for delays and retries.

    Raises
    ------
    BadSettings
        Another process uses `spool_dir`.
    """

    def __init__(
        self,
        client_factory: Callable[[], Client],
        *,
        database: str | None = None,
        spool_dir: Path,
        spool_bytes: int,
        batch_rows: int = 50_000,
        max_delay_s: float = 1.0,
        memory_bytes: int = MEMORY_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._memory_bytes = memory_bytes
        self._spool = Spool(spool_dir, spool_bytes)
        self._queue = Queue(batch_rows=batch_rows, max_delay_s=max_delay_s)
        self._changed = self._queue.changed
        self._spilling = threading.Lock()
        self._blocked = False
        self._waited_at = -math.inf
        self._spool_error = ""
        self._closed = False
        left = self._spool.recover()
        for file in left:
            self._queue.put(Batch(file.table, file.rows, file.size, file.digest, None, file))
        if left:
            log.info("clickhouse spool found", files=len(left), rows=sum(file.rows for file in left))
        self._loader = Loader(self._queue, self._spool, client_factory, database, monotonic)
        self._loader.start()

    # ------------------------------------------------------------------ rows
    def requests(self, columns: RequestColumns, costs: Costs, price_version: str) -> None:
        """Accept priced requests."""
        self._accept("requests", tables.requests(columns, costs, price_version))

    def request_windows(self, rows: RequestWindows) -> None:
        """Accept closed windows of requests."""
        self._accept("request_windows", window_tables.request_windows(rows))

    def gpu_samples(self, columns: GpuColumns) -> None:
        """Accept GPU samples."""
        self._accept("gpu_samples", tables.gpu_samples(columns))

    def gpu_windows(self, rows: GpuWindows) -> None:
        """Accept closed windows of GPUs."""
        self._accept("gpu_windows", window_tables.gpu_windows(rows))

    def scores(self, report: Report, min_score: float) -> None:
        """Accept a shard's judgements of at least `min_score`."""
        self._accept("scores", finding_tables.scores(report, min_score))

    def incidents(self, revisions: Sequence[Incident]) -> None:
        """Accept revisions of incidents."""
        if revisions:
            self._accept("incidents", finding_tables.incidents(revisions))

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Accept unusable messages."""
        if letters:
            self._accept("dead_letters", finding_tables.dead_letters(letters))

    def _accept(self, name: str, table: pa.Table | None) -> None:
        self._check_open()
        if table is None or table.num_rows == 0:
            return
        self._queue.add(name, table, self._monotonic())
        if self._queue.memory_bytes > self._memory_bytes:
            self._queue.seal(everything=True, now=self._monotonic())
            self._spill_all(keep_bytes=self._memory_bytes // 2)

    # ------------------------------------------------------------------ durability
    def checkpoint(self) -> None:
        """Return once every row accepted so far is inserted or durable on disk.

        Costs nothing when nothing waits. A server that keeps up gets `PATIENCE_S` to take the rows; otherwise they
        are written to the spool. Waits longer only when the spool is full, for then nothing else keeps the promise.
        """
        self._check_open()
        if self._queue.is_durable():
            return
        behind = bool(self._queue.batches())
        self._queue.flush()
        # Waiting is worth it only while the server keeps up: with a backlog the disk is sooner done.
        if self._loader.healthy and not behind:
            deadline = self._monotonic() + PATIENCE_S
            with self._changed:
                while not self._queue.is_durable() and self._loader.healthy:
                    left = deadline - self._monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
        if not self._queue.is_durable():
            self._queue.seal(everything=True, now=self._monotonic())
            self._spill_all()

    def _spill_all(self, *, keep_bytes: int | None = None, beyond_limit: bool = False) -> None:
        """Write waiting batches to disk, oldest first.

        With `keep_bytes` their memory is given back too, until no more than that is used.
        """
        if keep_bytes is None:
            for batch in self._queue.volatile():
                self._spill(batch, beyond_limit=beyond_limit)
            return
        for batch in self._queue.batches():
            if self._queue.memory_bytes <= keep_bytes:
                return
            self._spill(batch, beyond_limit=beyond_limit)
            self._queue.release(batch)

    def _spill(self, batch: Batch, *, beyond_limit: bool) -> None:
        """Make one batch durable, unless the server takes it first; waits while there is no room."""
        with self._spilling:
            try:
                while (payload := self._queue.unsaved(batch)) is not None:
                    try:
                        file = self._spool.store(
                            batch.table, batch.rows, payload, batch.digest, beyond_limit=beyond_limit
                        )
                    except (SpoolFull, OSError) as error:
                        self._wait_for_room(error, beyond_limit)
                        continue
                    if not self._queue.stored(batch, file):
                        self._spool.remove(file)
            finally:
                self._blocked = False

    def _wait_for_room(self, error: Exception, beyond_limit: bool) -> None:
        full = isinstance(error, SpoolFull)
        reason = "the spool is full" if full else f"the spool cannot be written ({_why(error)})"
        if beyond_limit:
            raise DeliveryFailed(f"clickhouse: {reason}; rows of this run would be lost", retryable=True) from error
        now = self._monotonic()
        if now - self._waited_at > SAID_AGAIN_S or reason != self._spool_error:
            log.error("clickhouse: the flow waits, because " + reason, spooled_bytes=self._spool.used_bytes)
        self._waited_at = now
        self._blocked = True
        self._spool_error = reason
        with self._changed:
            self._changed.wait(0.2)
        self._check_open()

    # ------------------------------------------------------------------ end
    def drain(self, timeout_s: float) -> bool:
        """Wait until the database has every row. Returns False if it has not after `timeout_s`."""
        deadline = self._monotonic() + timeout_s
        with self._changed:
            while not self._queue.is_empty():
                self._queue.flush()
                left = deadline - self._monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.5))
        return True

    def close(self) -> None:
        """Write to the spool what the database does not have yet, and stop. `drain` first to leave nothing."""
        if self._closed:
            return
        self._closed = True
        with self._changed:
            self._changed.notify_all()
        self._loader.stop()
        try:
            self._queue.seal(everything=True, now=self._monotonic())
            self._spill_all(beyond_limit=True)
        finally:
            self._loader.join(JOIN_TIMEOUT_S)
            self._spool.close()

    def _check_open(self) -> None:
        if self._closed:
            raise DeliveryFailed("clickhouse: the writer is closed", retryable=False)

    def status(self) -> dict[str, Any]:
        """Numbers for metrics and the terminal, without secrets.

        `queued_rows` (not inserted yet, wherever they wait), `queued_bytes` (in memory), `spooled_bytes`,
        `spooled_files`, `broken_files`, `blocked` (producers wait for room), `blocked_reason`, `healthy`,
        `inserted_rows` by table, `failures`, `refused` (last refusal by table, until it succeeds), `last_error`.
        """
        return {
            **self._queue.status(),
            "spooled_bytes": self._spool.used_bytes,
            "broken_files": self._spool.broken_files,
            "blocked": self._blocked,
            "blocked_reason": self._spool_error if self._blocked else "",
            **self._loader.status(),
        }


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
