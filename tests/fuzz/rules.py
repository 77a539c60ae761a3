"""What must hold for one message of any format, whatever its bytes are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np

from flows.partition import GpuBatch, GpuPartition, RequestBatch, RequestPartition
from schemas.block import Block
from schemas.dead_letter import MAX_PAYLOAD_CHARS
from schemas.errors import BadEvent, Reason
from schemas.formats import FORMATS, get_format
from schemas.timestamps import END_NS, MIN_NS
from tests.fuzz.seeds import samples

SECOND_NS = 1_000_000_000
CLOCK_AHEAD_NS = 300 * SECOND_NS
DISORDER_NS = 5 * SECOND_NS
MOST_EVENTS = 500
"""Of one message; a message that stands for more (`servegen`) is left alone, for the sake of speed."""

Batch = RequestBatch | GpuBatch


def decoder(name: str) -> RequestPartition | GpuPartition:
    """A fresh decoder of one partition, with the settings' defaults where they matter here."""
    common: dict[str, Any] = {
        "window_ns": 10 * SECOND_NS, "disorder_ns": DISORDER_NS, "allowed_lateness_ns": 60 * SECOND_NS,
        "max_clock_ahead_ns": CLOCK_AHEAD_NS,
    }  # fmt: skip
    if FORMATS[name].stream == "gpus":
        return GpuPartition("t", 3, get_format(name), **common)
    return RequestPartition(
        "t", 3, get_format(name), group_dimensions=["team", "model"], max_values_per_dimension=4,
        cache_ttl_ns=300 * SECOND_NS, **common,
    )  # fmt: skip


def fed(name: str, messages: Sequence[tuple[int, bytes]]) -> Batch:
    """One block of messages (offset, payload), stamped with the time of the format's good sample."""
    stamp_ms = good(name)[1] // 1_000_000
    offsets = [offset for offset, _ in messages]
    return decoder(name).feed(Block("t", 3, offsets, [p for _, p in messages], [stamp_ms] * len(messages)))


@cache
def good(name: str) -> tuple[bytes, int]:
    """A message that can be used, and its highest event time in ns."""
    for payload in samples(name):
        offset = [0]
        batch = decoder(name).feed(Block("t", 3, offset, [payload], [-1]))
        if 0 < len(batch.columns) <= MOST_EVENTS and not batch.dead:
            return payload, int(batch.columns.at_ns.max())
    raise AssertionError(f"no sample of {name} gives an event")


@cache
def without(name: str) -> tuple[dict[str, list[Any]], int]:
    """What the two good neighbours of `hold` come to alone, and the watermark after them."""
    batch = fed(name, [(0, good(name)[0]), (2, good(name)[0])])
    return told(batch, [0, 2]), batch.watermark_ns


def told(batch: Batch, offsets: Sequence[int]) -> dict[str, list[Any]]:
    """Everything the columns say about the rows of these offsets."""
    columns = batch.columns
    rows = np.flatnonzero(np.isin(columns.offsets, offsets)).tolist()
    out: dict[str, list[Any]] = {}
    for field in columns.__slots__:
        value = getattr(columns, field)
        if isinstance(value, np.ndarray):
            out[field] = [repr(value[row].item()) for row in rows]
        elif isinstance(value, list):
            out[field] = [value[row] for row in rows]
        elif field == "error_message":
            out[field] = [value.get(row) for row in rows]
        elif isinstance(value, dict):
            out |= {f"{field}.{name}": [c.values[c.codes[row]] for row in rows] for name, c in value.items()}
        elif hasattr(value, "values"):
            out[field] = [value.values[value.codes[row]] for row in rows]
    return out


def events_of(name: str, payload: bytes) -> int | None:
    """Events (or refusals) that a message must come to; None where there are too many to try."""
    count = 0
    try:
        for _ in get_format(name).decode(payload):
            count += 1
            if count > MOST_EVENTS:
                return None
    except BadEvent:
        return 1
    return count


def hold(name: str, payload: bytes) -> Batch | None:
    """Put one message between two good ones and hold the answer against the promises. Returns it."""
    expected = events_of(name, payload)
    if expected is None:
        return None
    neighbour, at_ns = good(name)
    batch = fed(name, [(0, neighbour), (1, payload), (2, neighbour)])
    columns, letters = batch.columns, [d for d in batch.dead if d.offset == 1]
    rows = int(np.count_nonzero(columns.offsets == 1))
    refused = [d for d in letters if d.reason is not Reason.TOO_LATE]
    assert rows + len(refused) == expected, f"{rows} rows and {len(refused)} refusals of {expected} events"
    for letter in letters:
        assert isinstance(letter.reason, Reason)
        assert letter.detail
        assert (letter.topic, letter.partition) == ("t", 3)
        assert 0 <= letter.position < max(expected, 1)
        assert len(letter.payload) <= MAX_PAYLOAD_CHARS
        assert msgspec.json.decode(msgspec.json.encode(letter))["offset"] == 1
    alone, watermark_ns = without(name)
    mine = told(batch, [0, 2])
    if rows == 0:
        assert mine == alone, "a refused message changed its neighbours"
        assert batch.watermark_ns == watermark_ns, "a refused message moved the watermark"
    else:
        for field in ("event_id", "dims.team", "dims.node", "at_ns", "input_tokens", "util"):
            assert mine.get(field) == alone.get(field), f"a message changed {field} of its neighbours"
    assert batch.watermark_ns <= at_ns // 1_000_000 * 1_000_000 + CLOCK_AHEAD_NS - DISORDER_NS or rows == 0
    assert ((columns.at_ns >= MIN_NS) & (columns.at_ns < END_NS)).all()
    for field in columns.__slots__:
        value = getattr(columns, field)
        if isinstance(value, np.ndarray):
            assert len(value) == len(columns), field
            if value.dtype == np.int64 and field != "at_ns":
                assert (value >= -1).all(), f"{field} is negative"
            if value.dtype == np.float64 and field != "temperature_c":
                assert not (value < 0).any(), f"{field} is negative"
                assert not np.isinf(value).any(), f"{field} is infinite"
    return batch
