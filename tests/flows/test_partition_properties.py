from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.partition import GpuBatch, GpuPartition, RequestBatch, RequestPartition, reading
from schemas.block import NO_TIMESTAMP, Block
from schemas.errors import Reason
from schemas.formats import get_format

S = 1_000_000_000
T0 = 1_767_268_800  # 2026-01-01T12:00:00Z
Messages = list[tuple[bytes | None, int]]


def requests(state: bytes | None = None) -> RequestPartition:
    return RequestPartition(
        "t", 3, get_format("request"), window_ns=10 * S, disorder_ns=5 * S, allowed_lateness_ns=20 * S,
        max_clock_ahead_ns=300 * S, group_dimensions=["team", "model"], max_values_per_dimension=2,
        cache_ttl_ns=30 * S, max_message_bytes=600, state=state,
    )  # fmt: skip


def gpus(state: bytes | None = None) -> GpuPartition:
    return GpuPartition(
        "t", 3, get_format("gpu"), window_ns=10 * S, disorder_ns=5 * S, allowed_lateness_ns=20 * S,
        max_clock_ahead_ns=300 * S, max_message_bytes=600, state=state,
    )  # fmt: skip


def block(messages: Messages, start: int = 0) -> Block:
    return Block("t", 3, range(start, start + len(messages)), [m[0] for m in messages], [m[1] for m in messages])


seconds = st.one_of(st.integers(0, 60), st.integers(0, 4 * 3600), st.just(10**7))
events = st.fixed_dictionaries(
    {"at": seconds.map(lambda s: T0 + s), "provider": st.just("openai"), "model": st.sampled_from("abcde")},
    optional={
        "team": st.sampled_from(["", "x", "y", "z", "other"]),
        "prefix_hash": st.sampled_from("pq"),
        "input_tokens": st.integers(-1, 9),
        "cache_read_tokens": st.integers(0, 9),
        "output_tokens": st.integers(0, 3),
        "reasoning_tokens": st.integers(0, 3),
        "error_message": st.sampled_from(["boom", "slow down"]),
        "error_type": st.just("timeout"),
        "cost_usd": st.sampled_from(["0.000001", "-1", "NaN", "2e6", 0.25, None]),
        "event_id": st.sampled_from(["e1", ""]),
        "stream": st.sampled_from([True, False, None]),
        "colour": st.just(1),
        "gpu_index": st.integers(0, 2),
        "gpu_uuid": st.sampled_from(["", "G"]),
        "node": st.just("n"),
        "util": st.sampled_from([0.5, 1.5, None]),
        "usd_per_hour": st.sampled_from(["2.5", "-2"]),
    },
).flatmap(lambda e: st.sampled_from([200, 200, 429, 0, "x"]).map(lambda s: {**e, "node": "n", "status": s}))
payloads = st.one_of(
    events.map(lambda e: json.dumps(e).encode()),
    events.map(lambda e: json.dumps(e).encode()),
    st.binary(max_size=40),
    st.sampled_from([None, b"", b"{", b"[]", b'{"prompt":"' + b"x" * 700 + b'"}']),
)
messages = st.lists(st.tuples(payloads, st.sampled_from([NO_TIMESTAMP, T0 * 1000, (T0 + 14_000) * 1000])), max_size=40)


def told(batches: list[Any]) -> dict[str, Any]:
    """Everything a run told, whatever the blocks: rows in order, dead letters, and sums."""
    out: dict[str, Any] = {"dead": [], "rejected": {}, "unknown": {}, "other": {}}
    rows = 0
    for batch in batches:
        columns = batch.columns
        for name in columns.__slots__:
            value = getattr(columns, name)
            if isinstance(value, np.ndarray):
                out.setdefault(name, []).extend(map(repr, value.tolist()))
            elif isinstance(value, list):
                out.setdefault(name, []).extend(value)
            elif name == "error_message":
                out.setdefault(name, {}).update({rows + row: text for row, text in value.items()})
            elif isinstance(value, dict):
                for key, coded in value.items():
                    out.setdefault(f"{name}.{key}", []).extend(coded.texts())
            elif hasattr(value, "texts"):
                out.setdefault(name, []).extend(value.texts())
        rows += len(columns)
        out["dead"].extend(batch.dead)
        for key, counts in (("rejected", batch.rejected), ("unknown", batch.unknown_fields)):
            for k, v in counts.items():
                out[key][k] = out[key].get(k, 0) + v
        for k, v in getattr(batch, "other", {}).items():
            out["other"][k] = out["other"].get(k, 0) + v
    out["watermark"] = batches[-1].watermark_ns
    out["offset"] = batches[-1].offset
    return out


@pytest.mark.parametrize("make", [requests, gpus])
@given(messages=messages, data=st.data())
@settings(max_examples=60, deadline=None)
def test_neither_the_cut_into_blocks_nor_restarts_change_an_answer(
    make: Any, messages: Messages, data: st.DataObject
) -> None:
    whole = make()
    at_once = told([whole.feed(block(messages))])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(messages)), max_size=5)))
    reader, batches, state = make(), [], b""
    for start, stop in zip([0, *cuts], [*cuts, len(messages)], strict=True):
        batches.append(reader.feed(block(messages[start:stop], start)))
        if data.draw(st.booleans()):
            state = reader.snapshot()
            reader = make(state)
            assert reader.snapshot() == state
    assert told(batches) == at_once
    assert reader.snapshot() == whole.snapshot()


@pytest.mark.parametrize("make", [requests, gpus])
@given(messages=messages, piece=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_the_size_of_pieces_does_not_change_an_answer(make: Any, messages: Messages, piece: int) -> None:
    whole = told([make().feed(block(messages))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE", piece)
        assert told([make().feed(block(messages))]) == whole


@pytest.mark.parametrize("make", [requests, gpus])
@given(messages=messages)
@settings(max_examples=60, deadline=None)
def test_every_message_is_a_row_or_a_dead_letter(make: Any, messages: Messages) -> None:
    batch: RequestBatch | GpuBatch = make().feed(block(messages))
    rows = batch.columns.offsets.tolist()
    refused = [letter.offset for letter in batch.dead if letter.reason is not Reason.TOO_LATE]
    too_late = [letter.offset for letter in batch.dead if letter.reason is Reason.TOO_LATE]
    assert sorted(rows + refused) == list(range(len(messages)))
    assert set(too_late) <= set(rows)
    assert [d.offset for d in batch.dead] == sorted(d.offset for d in batch.dead)
    if rows:
        assert sum(batch.rejected.values()) == len(batch.dead)
    for name in batch.columns.__slots__:
        value = getattr(batch.columns, name)
        if isinstance(value, np.ndarray):
            assert len(value) == len(rows)


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_arbitrary_bytes_never_raise(raw: list[bytes]) -> None:
    for make in (requests, gpus):
        assert len(make().feed(block([(each, NO_TIMESTAMP) for each in raw])).dead) == len(raw)
