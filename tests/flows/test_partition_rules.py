from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO, ClassVar, Literal

import pytest

from flows.partition import NO_WATERMARK, GpuPartition, RequestPartition
from flows.partition.cardinality import PERIOD_NS
from schemas.block import NO_TIMESTAMP, Block
from schemas.cause import Cause
from schemas.columns import LATE, MISSING, ON_TIME, TOO_LATE
from schemas.errors import BadEvent, BadSettings, Reason, StateUnreadable
from schemas.formats import get_format
from schemas.request_event import RequestEvent

S = 1_000_000_000
T0 = 1_767_268_800
EVENT: dict[str, Any] = {"at": T0, "provider": "openai", "model": "m", "status": 200}


def reader(format: Any = None, **changes: Any) -> RequestPartition:
    arguments: dict[str, Any] = {
        "window_ns": 10 * S, "disorder_ns": 5 * S, "allowed_lateness_ns": 20 * S, "max_clock_ahead_ns": 300 * S,
        "group_dimensions": ["team"], "max_values_per_dimension": 2, "cache_ttl_ns": 300 * S,
    }  # fmt: skip
    return RequestPartition("t", 3, format or get_format("request"), **(arguments | changes))


def block(events: list[dict[str, Any] | bytes | None], stamps: list[int] | None = None, start: int = 0) -> Block:
    raw = [json.dumps({**EVENT, **e}).encode() if isinstance(e, dict) else e for e in events]
    return Block("t", 3, range(start, start + len(raw)), raw, stamps or [NO_TIMESTAMP] * len(raw))


def at(*seconds: float) -> list[dict[str, Any] | bytes | None]:
    return [{"at": T0 + s} for s in seconds]


def reasons(batch: Any) -> list[tuple[int, Reason]]:
    return [(letter.offset, letter.reason) for letter in batch.dead]


def test_lateness_is_judged_by_the_events_before() -> None:
    # The window [0, 10) ends at 10: it closes when the highest time reaches 15, and takes late events until 35.
    batch = reader().feed(block(at(1, 14.999, 2, 15, 3, 34.999, 4, 35, 5)))
    late = batch.columns.lateness.tolist()
    assert late == [ON_TIME, ON_TIME, ON_TIME, ON_TIME, LATE, ON_TIME, LATE, ON_TIME, TOO_LATE]
    assert reasons(batch) == [(8, Reason.TOO_LATE)]
    assert len(batch.columns) == 9
    assert batch.watermark_ns == (T0 + 30) * S


def test_a_clock_ahead_becomes_a_dead_letter_and_moves_no_watermark() -> None:
    stamp = T0 * 1000
    batch = reader().feed(block(at(300, 301, 302), [stamp, stamp, NO_TIMESTAMP]))
    assert reasons(batch) == [(1, Reason.CLOCK_AHEAD)]
    assert batch.columns.offsets.tolist() == [0, 2]
    assert reader().feed(block(at(301), [stamp])).watermark_ns == NO_WATERMARK


def test_one_bad_message_costs_only_itself() -> None:
    events: list[dict[str, Any] | bytes | None] = [{"at": T0 + i / 1000} for i in range(3_000)]
    events[0], events[999], events[1_500], events[2_999] = None, b"{", {"input_tokens": -1}, {"at": "soon"}
    batch = reader(max_message_bytes=500).feed(block(events))
    assert reasons(batch) == [
        (0, Reason.EMPTY), (999, Reason.NOT_PARSABLE), (1_500, Reason.OUT_OF_RANGE), (2_999, Reason.BAD_TIMESTAMP),
    ]  # fmt: skip
    assert batch.columns.offsets.tolist() == [i for i in range(3_000) if i not in (0, 999, 1_500, 2_999)]


def test_too_large_messages_are_refused_unread() -> None:
    batch = reader(max_message_bytes=200).feed(block([{}, {"team": "x" * 200}]))
    assert reasons(batch) == [(1, Reason.TOO_LARGE)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"input_tokens": 10, "cache_read_tokens": 6, "cache_write_tokens": 5}, Reason.TOKEN_SEMANTICS),
        ({"input_tokens": 10, "cache_read_tokens": 11}, Reason.TOKEN_SEMANTICS),
        ({"output_tokens": 3, "reasoning_tokens": 4}, Reason.TOKEN_SEMANTICS),
        ({"cost_usd": "-0.01"}, Reason.OUT_OF_RANGE),
        ({"cost_usd": 1_000_000.01}, Reason.OUT_OF_RANGE),
        ({"cost_usd": "NaN"}, Reason.OUT_OF_RANGE),
        ({"cost_usd": "1e999999999"}, Reason.OUT_OF_RANGE),
        ({"outcome_value_usd": "Infinity"}, Reason.OUT_OF_RANGE),
        ({"at": True}, Reason.WRONG_TYPE),
        ({"at": 5}, Reason.BAD_TIMESTAMP),
    ],
)
def test_rules_between_fields_are_held(fields: dict[str, Any], reason: Reason) -> None:
    assert reasons(reader().feed(block([{}, fields]))) == [(1, reason)]


@pytest.mark.parametrize(
    "fields",
    [
        {"input_tokens": 10, "cache_read_tokens": 6, "cache_write_tokens": 4},
        {"cache_read_tokens": 6},
        {"reasoning_tokens": 6},
        {"output_tokens": 4, "reasoning_tokens": 4},
    ],
)
def test_what_is_not_known_breaks_no_rule(fields: dict[str, Any]) -> None:
    columns = reader().feed(block([fields])).columns
    assert {name: int(getattr(columns, name)[0]) for name in fields} == fields
    assert columns.prefix_tokens.tolist() == [MISSING]


@pytest.mark.parametrize("usd", ["0.000000000001", "123456.123456789012", "1000000", "0"])
def test_money_is_exact(usd: str) -> None:
    batch = reader().feed(block([{"cost_usd": usd, "outcome_value_usd": usd}, {}]))
    pico = int(Decimal(usd) * 10**12)
    assert batch.columns.cost_given_pico.tolist() == [pico, MISSING]
    assert batch.columns.outcome_value_pico.tolist() == [pico, MISSING]


def test_failures_have_a_cause_and_a_redacted_message() -> None:
    secret = "slow down, sk-0123456789abcdef " + "x" * 600
    batch = reader().feed(block([
        {"status": 401, "error_message": secret}, {"error_message": secret}, {"error_type": "timeout"}, {"status": 0},
    ]))  # fmt: skip
    columns = batch.columns
    assert columns.failed.tolist() == [True, False, True, True]
    assert columns.cause[0] == Cause.AUTH
    assert columns.cause[1] == Cause.NONE
    assert columns.cause[2] == Cause.TIMEOUT
    assert list(columns.error_message) == [0]
    assert columns.error_message[0].startswith("slow down, [removed]")
    assert len(columns.error_message[0]) <= 512


def test_dead_letters_show_no_prompt() -> None:
    batch = reader().feed(block([{"prompt": "walrus", "status": "x"}]))
    assert "walrus" not in repr(batch.dead)
    assert "[removed]" in batch.dead[0].payload


def test_dead_letters_count_in_the_window_of_the_highest_time_before_them() -> None:
    r = reader()
    assert r.feed(block([b"{", None])).rejected == {}
    start = T0 * S
    batch = r.feed(block([b"{", {"at": T0 + 3}, b"{", {"at": T0 + 13}, {"at": T0 + 1}, b"{", b"{"], start=2))
    assert batch.rejected == {start: 4, start + 10 * S: 2}
    assert [letter.at_ns for letter in batch.dead] == [0, start + 3 * S, start + 13 * S, start + 13 * S]


def test_events_without_an_id_are_named_by_their_place() -> None:
    batch = reader().feed(block([{"event_id": "a"}, {}, {"event_id": ""}]))
    assert batch.columns.event_id == ["a", "t/3/1", "t/3/2"]


def teams(*names: str, hour: int = 0) -> list[dict[str, Any] | bytes | None]:
    return [{"at": T0 + hour * 3600, "team": name} for name in names]


def test_values_are_named_while_there_is_room_then_by_the_activity_of_the_period_before() -> None:
    assert T0 * S % PERIOD_NS == 0
    batch = reader().feed(block([*teams("a", "b", "c", "c", "d", "d", ""), *teams("a", "c", "d", hour=1)]))
    assert batch.columns.group_dims["team"].texts() == [
        "a", "b", "other", "other", "other", "other", "", "other", "c", "d",
    ]  # fmt: skip
    assert batch.other == {"team": 5}
    assert batch.columns.dims["team"].texts()[2] == "c"


def test_equally_active_values_are_ranked_by_name() -> None:
    batch = reader().feed(block([*teams("z", "y", "x"), *teams("x", "y", "z", hour=1)]))
    assert batch.columns.group_dims["team"].texts() == ["z", "y", "other", "x", "y", "other"]


def test_the_state_of_a_dimension_is_bounded() -> None:
    r = reader()
    r.feed(block(teams(*(f"team-{i}" for i in range(2_000)))))
    small = len(r.snapshot())
    r.feed(block(teams(*(f"other-{i}" for i in range(2_000))), start=2_000))
    assert len(r.snapshot()) < small + 64 < 2_000


def prefix(second: float, name: str = "p", **more: Any) -> dict[str, Any]:
    return {"at": T0 + second, "prefix_hash": name, **more}


def test_a_prefix_is_repeated_within_its_time_to_live_for_the_same_model() -> None:
    batch = reader(cache_ttl_ns=30 * S).feed(block([
        prefix(0), prefix(30), prefix(61), prefix(62, model="n"), prefix(62, provider="q"), prefix(62, "r"), prefix(63),
        prefix(55), prefix(40), {"at": T0 + 64}, prefix(90),
    ]))  # fmt: skip
    expected = [False, True, False, False, False, False, True, True, True, False, True]
    assert batch.columns.prefix_repeated.tolist() == expected


def test_saved_state_that_is_not_ours_is_refused() -> None:
    r = reader()
    r.feed(block(teams("a")))
    good = r.snapshot()
    other = GpuPartition(
        "t", 3, get_format("gpu"), window_ns=S, disorder_ns=0, allowed_lateness_ns=0, max_clock_ahead_ns=0
    )
    damaged = [good[:cut] for cut in range(len(good))]
    damaged += [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(len(good))]
    for bad in (b"", b"garbage", pickle.dumps({}), other.snapshot(), *damaged):
        with pytest.raises(StateUnreadable):
            reader(state=bad)


def test_unknown_fields_are_counted_in_messages_chosen_by_offset() -> None:
    events: list[dict[str, Any] | bytes | None] = [{"colour": 1}] * 600
    assert reader().feed(block(events)).unknown_fields == {"colour": 3}
    assert reader().feed(block(events[:255], start=1)).unknown_fields == {}


def test_wrong_settings_stop_the_start() -> None:
    with pytest.raises(BadSettings, match="request"):
        reader(get_format("gpu"))
    with pytest.raises(BadSettings, match="colour"):
        reader(group_dimensions=["colour"])


class Many:
    """A format with several events per message, as OTLP has; it also misbehaves."""

    name: ClassVar[str] = "many"
    stream: ClassVar[Literal["requests", "gpus"]] = "requests"

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        yield from file

    def decode(self, payload: bytes) -> Iterator[RequestEvent]:
        if payload == b"crash":
            raise ZeroDivisionError
        for tokens in json.loads(payload):
            if tokens == "bad":
                raise BadEvent(Reason.WRONG_TYPE, "bad")
            yield RequestEvent(at=T0, provider="p", model="m", status=200, input_tokens=tokens)


def test_messages_with_many_events_keep_their_positions() -> None:
    batch = reader(Many()).feed(block([b"[1,-1,2]", b"[]", b"crash", b'[3,"bad"]', b'["x",4]']))
    columns = batch.columns
    assert columns.input_tokens.tolist() == [1, 2, 4]
    assert columns.offsets.tolist() == [0, 0, 4]
    assert columns.positions.tolist() == [0, 2, 1]
    assert columns.event_id == ["t/3/0", "t/3/0/2", "t/3/4/1"]
    assert [(d.offset, d.position, d.reason) for d in batch.dead] == [
        (0, 1, Reason.OUT_OF_RANGE), (2, 0, Reason.NOT_PARSABLE), (3, 0, Reason.WRONG_TYPE), (4, 0, Reason.WRONG_TYPE),
    ]  # fmt: skip


def test_a_batch_travels_between_processes() -> None:
    batch = reader().feed(block(teams("a")))
    assert pickle.loads(pickle.dumps(batch)).columns.event_id == batch.columns.event_id
