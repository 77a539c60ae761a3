from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadEvent, BadSettings, Reason
from schemas.formats import FORMATS, get_format
from schemas.formats.request import RequestFormat

START = b'{"at":1767268800,"provider":"openai","model":"m","status":200'


@pytest.mark.parametrize(
    ("payload", "reason", "where"),
    [
        (b"", Reason.EMPTY, ""),
        (b" \r\n", Reason.EMPTY, ""),
        (b"{", Reason.NOT_PARSABLE, ""),
        (START, Reason.NOT_PARSABLE, ""),
        (START + b"} x", Reason.NOT_PARSABLE, ""),
        (START + b',"team":"\xff"}', Reason.NOT_PARSABLE, ""),
        (START + b',"team":"\\ud800"}', Reason.NOT_PARSABLE, ""),
        (START + b',"latency_ms":NaN}', Reason.NOT_PARSABLE, ""),
        (START + b',"x":' + b"[" * 100_000 + b"}", Reason.NOT_PARSABLE, "deep"),
        (b'{"at":1,"model":"m","status":200}', Reason.MISSING_FIELD, "`provider`"),
        (b'{"at":1,"provider":"p","status":200}', Reason.MISSING_FIELD, "`model`"),
        (b'{"at":1,"provider":"p","model":"m"}', Reason.MISSING_FIELD, "`status`"),
        (b'{"provider":"p","model":"m","status":200}', Reason.MISSING_FIELD, "`at`"),
        (b"[]", Reason.WRONG_TYPE, "`object`"),
        (b"null", Reason.WRONG_TYPE, "`object`"),
        (START + b',"at":true}', Reason.WRONG_TYPE, "`$.at`"),
        (START + b',"input_tokens":"5"}', Reason.WRONG_TYPE, "`$.input_tokens`"),
        (START + b',"input_tokens":5.5}', Reason.WRONG_TYPE, "`$.input_tokens`"),
        (START + b',"stream":1}', Reason.WRONG_TYPE, "`$.stream`"),
        (START + b',"cost_usd":"walrus"}', Reason.WRONG_TYPE, "`$.cost_usd`"),
        (START + b',"status":1000}', Reason.OUT_OF_RANGE, "`$.status`"),
        (START + b',"input_tokens":-1}', Reason.OUT_OF_RANGE, "`$.input_tokens`"),
        (START + b',"input_tokens":99999999999999999999}', Reason.OUT_OF_RANGE, "`$.input_tokens`"),
        (START + b',"latency_ms":-0.1}', Reason.OUT_OF_RANGE, "`$.latency_ms`"),
        (START + b',"latency_ms":1e999}', Reason.OUT_OF_RANGE, "`$.latency_ms`"),
        (START + b',"attempt":0}', Reason.OUT_OF_RANGE, "`$.attempt`"),
        (START + b',"team":"' + b"walrus" * 100 + b'"}', Reason.OUT_OF_RANGE, "`$.team`"),
    ],
    ids=lambda p: repr(p)[-40:] if isinstance(p, bytes) else None,
)
def test_a_refusal_says_why_and_where_but_not_what(payload: bytes, reason: Reason, where: str) -> None:
    with pytest.raises(BadEvent) as caught:
        RequestFormat().decode(payload)
    assert caught.value.reason is reason
    assert where in caught.value.detail
    assert "walrus" not in caught.value.detail


def test_unknown_fields_are_ignored_and_the_last_of_equal_keys_wins() -> None:
    (event,) = RequestFormat().decode(START + b',"colour":[{"x":1}],"team":null,"team":"a","status":429}')
    assert (event.team, event.status) == ("a", 429)


def test_null_means_not_reported() -> None:
    (event,) = RequestFormat().decode(START + b',"input_tokens":null}')
    assert event.input_tokens is None


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: START + b + b"}"))
def test_any_bytes_give_one_event_or_a_bad_event(payload: bytes) -> None:
    try:
        events = RequestFormat().decode(payload)
    except BadEvent:
        return
    assert len(events) == 1


def test_lines_are_messages_and_blank_lines_are_none() -> None:
    file = io.BytesIO(b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"b":2}')
    assert list(RequestFormat().lines(file)) == [b'{"a":1}', b'{"b":2}']


def test_every_format_is_known_by_its_own_name() -> None:
    assert all(get_format(name).name == name for name in FORMATS)
    assert all(get_format(name).stream in ("requests", "gpus") for name in FORMATS)


def test_an_unknown_format_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(BadSettings, match=r"'nope'.*gpu.*request"):
        get_format("nope")
