"""The reader of one partition of request events: blocks of raw messages in, columns and dead letters out.

Whatever it decides, it decides by what came before in the same partition. So neither the cut into blocks nor a restart
nor the other partitions can change an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from flows.partition.cardinality import PERIOD_NS, NameTable, SavedTable
from flows.partition.failures import Failures
from flows.partition.lateness import Progress
from flows.partition.position import Position, Rows, SavedPosition
from flows.partition.prefixes import Prefixes, SavedPrefixes
from flows.partition.reading import Reader
from flows.partition.refusals import Rejections
from flows.partition.request_rows import RequestRows
from flows.state import pack, unpack
from schemas.block import Block
from schemas.columns import DIMENSIONS, Coded, IntArray, RequestColumns
from schemas.dead_letter import DeadLetter
from schemas.errors import BadSettings
from schemas.formats.base import Format
from schemas.request_event import RequestEvent

COMPONENT = "request-partition"
FORMAT = 1
"""Raised with every change of what the saved state means."""


@dataclass(slots=True)
class RequestBatch:
    """What one block of request messages came to."""

    columns: RequestColumns
    dead: list[DeadLetter]
    """Refused messages and events, and those that came too late (which stay in `columns`), by position."""
    watermark_ns: int
    """Highest usable event time so far minus the allowed disorder; `NO_WATERMARK` before any."""
    rejected: dict[int, int] = field(default_factory=dict)
    """By start of window, ns: dead letters (too late ones included) at whose position the partition's highest event
    time lay in that window. Those before any event count in the first event's window."""
    unknown_fields: dict[str, int] = field(default_factory=dict)
    """By name: sampled messages with a field that the schema does not know."""
    offset: int = -1
    """Next position to read; -1 while nothing was read."""
    other: dict[str, int] = field(default_factory=dict)
    """By dimension: events whose value reads `other` in `group_dims`."""


class _Saved(Struct, array_like=True):
    position: SavedPosition
    tables: dict[str, SavedTable]
    prefixes: SavedPrefixes


class RequestPartition:
    """Reads one partition of request events.

    Parameters
    ----------
    topic, partition
        What is read.
    format
        How messages are written.
    window_ns, disorder_ns, allowed_lateness_ns
        Windows, and when an event is late; see `flows.partition.lateness`.
    max_clock_ahead_ns
        How far `at` may lie ahead of the message's Kafka timestamp.
    group_dimensions
        Dimensions that series are formed by.
    max_values_per_dimension
        Values of each that keep their name.
    cache_ttl_ns
        How long a provider keeps a prompt prefix.
    max_message_bytes
        Larger messages are refused.
    state
        What `snapshot` gave.

    Raises
    ------
    StateUnreadable
        `state` is damaged, foreign or of another format.
    BadSettings
        The format's events are not requests, or a dimension does not exist.
    """

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
        group_dimensions: Sequence[str],
        max_values_per_dimension: int,
        cache_ttl_ns: int,
        max_message_bytes: int = 1_048_576,
        state: bytes | None = None,
    ) -> None:
        if format.stream != "requests":
            raise BadSettings(f"format {format.name} holds no request events; topic {topic} needs a request format")
        unknown = [name for name in group_dimensions if name not in DIMENSIONS]
        if unknown:
            raise BadSettings(f"unknown dimensions {', '.join(unknown)}; known: {', '.join(DIMENSIONS)}")
        saved = unpack(COMPONENT, FORMAT, state, _Saved) if state is not None else None
        self.topic, self.partition = topic, partition
        self._reader = Reader(format, RequestEvent, max_message_bytes)
        self._max_clock_ahead_ns = max_clock_ahead_ns
        self._position = Position(Progress(window_ns, disorder_ns, allowed_lateness_ns), Rejections(window_ns))
        tables = saved.tables if saved else {}
        self._tables = {
            name: NameTable(max_values_per_dimension, tables.get(name)) for name in dict.fromkeys(group_dimensions)
        }
        self._prefixes = Prefixes(cache_ttl_ns, saved=saved.prefixes if saved else None)
        self._failures = Failures()
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
        """State for a restart after the last block, bounded by the sizes of the tables."""
        tables = {name: table.save() for name, table in self._tables.items()}
        return pack(COMPONENT, FORMAT, _Saved(self._position.save(), tables, self._prefixes.save()))

    def feed(self, block: Block) -> RequestBatch:
        """Read the partition's next messages. Never raises for what they hold."""
        rows = Rows(block, self._max_clock_ahead_ns)
        columns = RequestRows()
        for piece in self._reader.pieces(block, rows.refusals):
            at, refused = columns.add(piece.events)
            rows.add(piece, at, refused)
        keep = rows.finish()
        judged = self._position.judge(rows)
        decoded = columns.finish(keep)
        group_dims, other = self._bounded(decoded.dims, judged.running_ns)
        causes, messages = self._failures.judge(decoded)
        numbers = decoded.whole
        return RequestBatch(
            columns=RequestColumns(
                topic=block.topic,
                partition=block.partition,
                offsets=rows.offsets,
                positions=rows.positions,
                event_id=_identities(decoded.event_id, block, rows.offsets, rows.positions),
                at_ns=rows.at_ns,
                lateness=judged.lateness,
                dims=decoded.dims,
                group_dims=group_dims,
                prefix_hash=decoded.prefix_hash,
                prefix_repeated=self._repeated(decoded.dims, decoded.prefix_hash, rows.at_ns, judged.running_ns),
                status=numbers["status"],
                failed=decoded.failed,
                cause=causes,
                stream=decoded.stream,
                attempt=numbers["attempt"],
                input_tokens=numbers["input_tokens"],
                output_tokens=numbers["output_tokens"],
                cache_read_tokens=numbers["cache_read_tokens"],
                cache_write_tokens=numbers["cache_write_tokens"],
                reasoning_tokens=numbers["reasoning_tokens"],
                prefix_tokens=numbers["prefix_tokens"],
                latency_ms=decoded.real["latency_ms"],
                ttft_ms=decoded.real["ttft_ms"],
                retry_after_ms=decoded.real["retry_after_ms"],
                ratelimit_limit_requests=numbers["ratelimit_limit_requests"],
                ratelimit_remaining_requests=numbers["ratelimit_remaining_requests"],
                ratelimit_limit_tokens=numbers["ratelimit_limit_tokens"],
                ratelimit_remaining_tokens=numbers["ratelimit_remaining_tokens"],
                cost_given_pico=numbers["cost_usd"],
                outcome_value_pico=numbers["outcome_value_usd"],
                error_message=messages,
            ),
            dead=judged.dead,
            watermark_ns=self.watermark_ns,
            rejected=judged.rejected,
            unknown_fields=self._reader.unknown_fields(block),
            offset=self._position.offset,
            other=other,
        )

    def _bounded(self, dims: dict[str, Coded], running_ns: IntArray) -> tuple[dict[str, Coded], dict[str, int]]:
        periods = running_ns // PERIOD_NS
        bounded: dict[str, Coded] = {}
        other: dict[str, int] = {}
        for name, table in self._tables.items():
            bounded[name], others = table.apply(dims[name], periods)
            if others:
                other[name] = others
        return bounded, other

    def _repeated(
        self, dims: dict[str, Coded], prefix: Coded, at_ns: IntArray, running_ns: IntArray
    ) -> npt.NDArray[np.bool_]:
        return self._prefixes.repeated(dims["provider"], dims["model"], prefix, at_ns, running_ns)


def _identities(given: list[str | None], block: Block, offsets: IntArray, positions: IntArray) -> list[str]:
    """Identity of each event: the producer's, else its place."""
    if all(given):
        return cast("list[str]", given)
    place = f"{block.topic}/{block.partition}/"
    return [
        identity or (f"{place}{offset}/{position}" if position else f"{place}{offset}")
        for identity, offset, position in zip(given, offsets.tolist(), positions.tolist(), strict=True)
    ]
