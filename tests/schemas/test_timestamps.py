from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadEvent, Reason
from schemas.timestamps import END_NS, MIN_NS, all_to_ns, to_ns

NOON = 1_767_268_800_000_000_000  # 2026-01-01T12:00:00Z, by `date -d ... +%s`

GOOD = [
    ("2026-01-01T12:00:00Z", NOON),
    ("2026-01-01t12:00:00z", NOON),
    ("2026-01-01 12:00:00Z", NOON),
    ("2026-01-01T14:00:00+02:00", NOON),
    ("2026-01-01T06:30:00-05:30", NOON),
    ("2026-01-01T12:00:00-00:00", NOON),
    *((f"2026-01-01T12:00:00.{'123456789'[:d]}Z", NOON + int("123456789"[:d].ljust(9, "0"))) for d in range(1, 10)),
    ("2026-01-01T12:00:00.123456789999Z", NOON + 123456789),
    ("2000-01-01T00:00:00Z", MIN_NS),
    ("2099-12-31T23:59:59.999999999Z", END_NS - 1),
    ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
    ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
    ("2017-01-01T00:59:60+01:00", 1_483_228_800_000_000_000),
    (1767268800, NOON),
    (1767268800123, NOON + 123_000_000),
    (1767268800123456, NOON + 123_456_000),
    (1767268800123456789, NOON + 123_456_789),
    (1767268800.0, NOON),
    (1767268800.123, NOON + 123_000_000),
    (1767268800.1234567, NOON + 123_456_700),
    (1767268800123.5, NOON + 123_500_000),
    (1767268800123456.0, NOON + 123_456_000),
    (1767268800.000001, NOON + 1_000),
]
BAD: list[object] = [
    "", "now", "2026-01-01", "2026-01-01T12:00:00", "2026-01-01T12:00Z", "2026-01-01T12:00:00.Z",
    "2026-01-01T12:00:00+0200", "2026-01-01T12:00:00+24:00", "2026-01-01T12:00:00+02:60", "2026-13-01T12:00:00Z",
    "2026-00-01T12:00:00Z", "2026-02-29T12:00:00Z", "2026-01-32T12:00:00Z", "2026-01-00T12:00:00Z",
    "2026-01-01T24:00:00Z", "2026-01-01T12:60:00Z", "2026-01-01T12:00:61Z", "2026-01-01T12:00:60Z",
    "2026-01-15T23:59:60Z", "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+23:59", "2026-01-01T12:00:00Z\n", " 2026-01-01T12:00:00Z",
    "２０２６-01-01T12:00:00Z", "2026-01-01T12:00:00.１Z", "2026-01-01T12:00:00." + "1" * 99 + "Z", "1767268800",
    True, False, None, [], b"2026-01-01T12:00:00Z", float("nan"), float("inf"), -float("inf"), -1, 0, 1.5, -1767268800,
    946684799, 4102444800,
    (2**64 + NOON) // 10**9, (2**64 + NOON) // 10**6, (2**64 + NOON) // 10**3, 10**30,
    -(10**30), 1e300, 2**63, 9.99e10, 99_999_999_999,
]  # fmt: skip


@pytest.mark.parametrize(("at", "ns"), GOOD, ids=str)
def test_every_usable_form_is_read_to_the_nanosecond(at: object, ns: int) -> None:
    assert to_ns(at) == ns
    assert all_to_ns([at])[0].tolist() == [ns]


@pytest.mark.parametrize("at", BAD, ids=lambda x: repr(x)[:40])
def test_every_unusable_form_is_a_bad_timestamp(at: object) -> None:
    with pytest.raises(BadEvent) as caught:
        to_ns(at)
    assert caught.value.reason is Reason.BAD_TIMESTAMP
    ns, bad = all_to_ns([at])
    assert ns.tolist() == [0]
    assert bad[0].detail == caught.value.detail


def test_mixed_forms_do_not_disturb_each_other() -> None:
    values = [at for pair in zip([g[0] for g in GOOD], BAD, strict=False) for at in pair]
    ns, bad = all_to_ns(values)
    assert ns[::2].tolist() == [g[1] for g in GOOD]
    assert sorted(bad) == list(range(1, len(values), 2))


def test_no_values_give_no_times() -> None:
    ns, bad = all_to_ns([])
    assert ns.shape == (0,)
    assert ns.dtype == np.int64
    assert bad == {}


instants = st.integers(MIN_NS, END_NS - 1)


@given(st.lists(instants, min_size=1, max_size=20), st.integers(0, 9))
def test_texts_give_back_the_instant_they_were_written_from(times: list[int], digits: int) -> None:
    times = [t - t % 10 ** (9 - digits) for t in times]
    texts = []
    for t in times:
        second = datetime.fromtimestamp(t // 10**9, timezone(timedelta(0))).strftime("%Y-%m-%dT%H:%M:%S")
        texts.append(second + (f".{t % 10**9:09d}"[: digits + 1] if digits else "") + "Z")
    ns, bad = all_to_ns(texts)
    assert ns.tolist() == times == [to_ns(x) for x in texts]
    assert bad == {}


@given(st.lists(st.one_of(instants, st.integers(), st.floats(), st.text(max_size=30), st.booleans()), max_size=20))
def test_the_vectorised_path_agrees_with_the_scalar_one(values: list[object]) -> None:
    ns, bad = all_to_ns(values)
    for i, value in enumerate(values):
        if i in bad:
            with pytest.raises(BadEvent) as caught:
                to_ns(value)
            assert bad[i].detail == caught.value.detail
        else:
            assert ns[i] == to_ns(value)


@given(st.lists(st.floats(9e8, 5e9) | st.floats(9e11, 5e12) | st.floats(9e14, 5e15), min_size=1, max_size=20))
def test_floats_mean_their_shortest_decimal(values: list[float]) -> None:
    ns, bad = all_to_ns(values)
    for i, value in enumerate(values):
        if i not in bad:
            assert ns[i] == to_ns(value)
