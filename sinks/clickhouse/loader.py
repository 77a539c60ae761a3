"""The background thread that inserts batches, and what it does when the database does not take them."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import structlog
from clickhouse_connect.driver.client import Client

from schemas.errors import DeliveryFailed, StateUnreadable
from sinks.clickhouse.client import DEFAULT_DATABASE, describe, is_busy, is_transport
from sinks.clickhouse.queue import Batch, Queue
from sinks.clickhouse.spool import Spool, decode, digest_of, encode

log = structlog.get_logger(__name__)

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 10.0
"""Retries of a server that does not answer or is busy back off from the one to the other."""

LAST_REFUSED_RETRY_S = 60.0
"""A refusal (missing table, missing right, wrong type) ends when a person acts, so it is retried more rarely."""

SETTINGS: dict[str, Any] = {
    "async_insert": 0,  # batches are made here; the server's own batching would acknowledge rows it can still lose
    "max_partitions_per_insert_block": 0,  # a replay of old traces may span many weeks
}


class Loader:
    """Inserts what waits in the queue, one insert at a time.

    A connection that fails holds back everything; a refusal holds back the refused table alone. Nothing is ever
    dropped: a refused batch stays, and `status` and the log say why.

    Parameters
    ----------
    queue, spool
        Where batches come from.
    connect
        Makes a connection.
    database
        Database of the tables; None for that of the connection.
    monotonic
        Clock in seconds.
    """

    def __init__(
        self,
        queue: Queue,
        spool: Spool,
        connect: Callable[[], Client],
        database: str | None,
        monotonic: Callable[[], float],
    ) -> None:
        self.healthy = True
        """Whether the last insert succeeded (True before any)."""
        self._queue = queue
        self._spool = spool
        self._connect = connect
        self._database = database
        self._monotonic = monotonic
        self._client: Client | None = None
        self._jitter = random.Random()
        self._inserted: Counter[str] = Counter()
        self._failures = 0
        self._failures_in_row = 0
        self._not_before = 0.0
        self._refusals: Counter[str] = Counter()
        self._refused: dict[str, str] = {}
        self._held: dict[str, float] = {}
        self._last_error = ""
        self._stopping = False
        self._retry: list[Batch] = []
        """The group whose insert failed on the way: sent again unchanged, so that the server knows its token."""
        self._thread = threading.Thread(target=self._run, name="clickhouse-loader", daemon=True)

    def start(self) -> None:
        """Begin inserting."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further insert."""
        with self._queue.changed:
            self._stopping = True
            self._queue.changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for an insert that is under way, then disconnect."""
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._disconnect()

    def status(self) -> dict[str, Any]:
        """See `Writer.status`."""
        with self._queue.changed:
            return {
                "healthy": self.healthy,
                "inserted_rows": dict(sorted(self._inserted.items())),
                "failures": self._failures,
                "refused": dict(sorted(self._refused.items())),
                "last_error": self._last_error,
            }

    # ------------------------------------------------------------------ the thread
    def _run(self) -> None:
        while True:
            try:
                group = self._next()
                if group is None:
                    return
                if group:
                    self._load(group)
            except Exception as error:  # the thread must live on: nobody else would insert
                self._stumbled(error)

    def _stumbled(self, error: Exception) -> None:
        log.error("clickhouse loader failed, it goes on", error=describe(error))
        with self._queue.changed:
            self._failures += 1
            self._last_error = describe(error)
            self._queue.changed.wait(LAST_RETRY_S)

    def _next(self) -> list[Batch] | None:
        """Wait for work. None: stop; empty: look again."""
        now = self._monotonic()
        with self._queue.changed:
            if self._stopping:
                return None
            due = self._queue.due_in(now)
            if due is None or due > 0:
                group = self._choose(now)
                if group:
                    return group
                waits = [s for s in (due, self._next_try_in(now)) if s is not None]
                self._queue.changed.wait(max(0.001, min(waits)) if waits else None)
                return []
        self._queue.seal(everything=False, now=now)
        return []

    def _choose(self, now: float) -> list[Batch]:
        if self._not_before > now:
            return []
        group, self._retry = self._retry, []
        return group or self._queue.choose(now, self._held)

    def _next_try_in(self, now: float) -> float | None:
        wait = self._queue.next_try_in(now, self._held)
        return None if wait is None else max(wait, self._not_before - now)

    def _load(self, group: list[Batch]) -> None:
        try:
            payload, token = self._payload(group)
        except StateUnreadable:
            return  # what was damaged is set aside; the others come again
        try:
            if self._client is None:
                self._client = self._connect()
            self._client.raw_insert(
                f"`{self._database or self._client.database or DEFAULT_DATABASE}`.`{group[0].table}`",
                pa.ipc.open_file(pa.BufferReader(payload)).schema.names,
                payload,
                settings=SETTINGS | {"insert_deduplication_token": token},
                fmt="Arrow",
            )
        except Exception as error:  # whatever it is, the rows stay and the error is shown
            self._failed(group, error)
        else:
            self._succeeded(group)

    def _payload(self, group: list[Batch]) -> tuple[bytes, str]:
        parts = []
        for batch in group:
            payload = batch.payload
            if payload is None:
                assert batch.file is not None, "a batch is in memory or on disk"
                try:
                    payload = self._spool.read(batch.file)
                except StateUnreadable as error:
                    self._queue.finish([batch])
                    self._spool.set_aside(batch.file, str(error))
                    raise
            parts.append(payload)
        if len(group) == 1:
            return parts[0], group[0].digest
        merged = encode([decode(part) for part in parts])
        return merged, digest_of(merged)

    # ------------------------------------------------------------------ the outcome
    def _succeeded(self, group: list[Batch]) -> None:
        table = group[0].table
        with self._queue.changed:
            if not self.healthy:
                log.info("clickhouse takes rows again", table=table)
            self.healthy = True
            self._failures_in_row = 0
            self._not_before = 0.0
            self._inserted[table] += sum(batch.rows for batch in group)
            self._refusals.pop(table, None)
            self._refused.pop(table, None)
            self._refused.pop("connection", None)
            self._held.pop(table, None)
        # Files go first, so that an empty queue means an empty spool; one may still be written at this moment.
        files = [batch.file for batch in group if batch.file is not None]
        for file in files:
            self._spool.remove(file)
        for file in self._queue.finish(group):
            if file not in files:
                self._spool.remove(file)

    def _failed(self, group: list[Batch], error: Exception) -> None:
        text = describe(error)
        now = self._monotonic()
        connecting = self._client is None
        out_of_reach = error.retryable if isinstance(error, DeliveryFailed) else is_transport(error)
        refused = not out_of_reach and not is_busy(error)
        with self._queue.changed:
            self._failures += 1
            self._last_error = text
            if refused and not connecting:
                self._refuse(group, text, now)
            else:
                self._failures_in_row += 1
                self._retry = group
                self.healthy = False
                self._not_before = now + self._delay(self._failures_in_row, LAST_RETRY_S)
                if refused:
                    self._refused["connection"] = text
                if self._failures_in_row == 1:
                    log.warning("clickhouse does not take rows, they wait", error=text, table=group[0].table)
            self._queue.changed.notify_all()
        # A connection remembers what the server allowed when it was made: after a refusal that may be history.
        self._disconnect()

    def _refuse(self, group: list[Batch], text: str, now: float) -> None:
        table = group[0].table
        if self._refused.get(table) != text:
            log.error(
                "clickhouse refuses rows, they are kept", table=table, error=text, rows=sum(b.rows for b in group)
            )
        self._refused[table] = text
        self._refusals[table] += 1
        self._held[table] = now + self._delay(self._refusals[table], LAST_REFUSED_RETRY_S)
        for batch in group:
            batch.attempts += 1
            batch.not_before = now + self._delay(batch.attempts, LAST_REFUSED_RETRY_S)

    def _delay(self, attempt: int, longest_s: float) -> float:
        bound = min(longest_s, FIRST_RETRY_S * 2.0 ** min(attempt - 1, 20))
        return bound * self._jitter.uniform(0.5, 1.0)

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # it is broken or unused: nothing depends on its farewell
                client.close()
