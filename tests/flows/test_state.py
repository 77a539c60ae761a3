"""Saved state: what cannot be read means a cold start, never a crash and never foreign code."""

from __future__ import annotations

import os
import pickle
import zlib

import msgspec
import numpy as np
import pytest

from flows.state import MAGIC, pack, unpack, unpack_or_cold
from schemas.errors import StateUnreadable


def test_state_comes_back_as_it_was() -> None:
    state = {"a": np.arange(3), "b": [1, "two"]}
    back = unpack("bank", 2, pack("bank", 2, state))
    assert back["b"] == [1, "two"]
    assert back["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("cut", [0, 3, 7, 40, -1])
def test_truncated_state_is_refused(cut: int) -> None:
    with pytest.raises(StateUnreadable):
        unpack("bank", 1, pack("bank", 1, list(range(100)))[:cut])


def test_damaged_state_is_refused() -> None:
    data = bytearray(pack("bank", 1, list(range(1000))))
    data[-10] ^= 1
    with pytest.raises(StateUnreadable, match="damaged"):
        unpack("bank", 1, bytes(data))


@pytest.mark.parametrize(("component", "number"), [("judge", 1), ("bank", 2)])
def test_state_of_another_component_or_format_is_refused(component: str, number: int) -> None:
    with pytest.raises(StateUnreadable, match="reads format"):
        unpack(component, number, pack("bank", 1, []))


def test_foreign_types_are_not_loaded() -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("true",)

    body = pickle.dumps(Evil())
    header = msgspec.json.encode(
        {"component": "bank", "format": 1, "libraries": {}, "size": len(body), "crc32": zlib.crc32(body)}
    )
    with pytest.raises(StateUnreadable, match="foreign type"):
        unpack("bank", 1, MAGIC + len(header).to_bytes(4, "big") + header + body)


def test_an_unreadable_state_is_a_cold_start() -> None:
    assert unpack_or_cold("bank", 1, b"nonsense") is None
    assert unpack_or_cold("bank", 1, None) is None
