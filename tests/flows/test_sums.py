from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.windows.sums import LARGEST_SUM, add_groups
from tests.fuzz import whole

T0 = 1_767_268_800
amounts = st.integers(0, LARGEST_SUM) | st.integers(0, 100) | st.sampled_from([2**53, 10**18, LARGEST_SUM])


@given(values=st.lists(amounts, min_size=1, max_size=12), data=st.data())
def test_sums_stop_at_the_top_and_are_exact_below_in_any_order_of_adding(
    values: list[int], data: st.DataObject
) -> None:
    expected = min(sum(values), LARGEST_SUM)
    column = np.array(values, np.int64)[:, None]
    assert add_groups(column, np.array([0])).tolist() == [[expected]]
    starts = sorted({0, *data.draw(st.lists(st.integers(0, len(values) - 1)))})
    parts = add_groups(column, np.array(starts))
    assert add_groups(parts, np.array([0])).tolist() == [[expected]]


@pytest.mark.parametrize("per_block", [1, 30])
def test_a_bill_that_nobody_can_have_does_not_turn_negative(per_block: int) -> None:
    events = [
        {"at": T0 + i / 100, "provider": "p", "model": "m", "status": 200, "cost_usd": "1000000", "input_tokens": 2**53}
        for i in range(30)
    ]
    payloads = [json.dumps(event).encode() for event in events]
    outcome = whole.run("request", [payloads[i : i + per_block] for i in range(0, 30, per_block)])
    assert {int(w.column("cost_pico").max()) for w in outcome.requests} == {LARGEST_SUM}
    assert {int(w.column("input_tokens").max()) for w in outcome.requests} == {30 * 2**53}


def test_an_xid_that_no_table_can_hold_is_refused() -> None:
    sample = {"node": "n", "gpu_uuid": "g", "util": 0.5}
    payloads = [
        json.dumps({**sample, "at": T0 + i, "xid": xid}).encode() for i, xid in enumerate([0, 2**32, 2**32 - 1])
    ]
    outcome = whole.run("gpu", [payloads])
    assert [d.offset for d in outcome.dead] == [1]
    assert next(codes for w in outcome.gpus for codes in w.xids if codes) == (2**32 - 1,)
