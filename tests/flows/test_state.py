"""Saved state: what cannot be read means a cold start, never a crash and never foreign code."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.private_dir import check_parent, make_private
from flows.state import MAGIC, fingerprint, pack, unpack, unpack_or_cold
from schemas.errors import BadSettings, StateUnreadable
from schemas.series import Series


@dataclass(slots=True)
class Bank:
    """Everything that state consists of."""

    floats: npt.NDArray[np.float64]
    table: npt.NDArray[np.int64]
    words: list[str | None]
    by_series: dict[tuple[str, Series], int]
    seen: set[int]
    further: dict[str, npt.NDArray[Any]]


def bank(n: int = 4) -> Bank:
    some = Series("requests", ("team",), ("search",))
    return Bank(
        np.array([1.5, np.nan, -np.inf][:n]),
        np.arange(2 * n).reshape(n, 2),
        ["ä", None, ""],
        {("cost_spike", some): 7},
        {2**62, -(2**62)},
        {"flags": np.array([True, False]), "codes": np.zeros((0, 3), np.int16), "small": np.ones(2, np.float32)},
    )


def test_state_comes_back_as_it_was() -> None:
    was = bank()
    back = unpack("bank", 2, pack("bank", 2, was), Bank)
    assert (back.words, back.by_series, back.seen) == (was.words, was.by_series, was.seen)
    assert isinstance(next(iter(back.by_series))[1], Series)
    pairs = [(back.floats, was.floats), (back.table, was.table)]
    pairs += [(back.further[name], array) for name, array in was.further.items()]
    for again, array in pairs:
        np.testing.assert_array_equal(again, array)
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.flags.writeable


def test_a_view_into_a_larger_array_is_saved_as_what_it_shows() -> None:
    view = np.arange(20).reshape(4, 5)[::2, ::-1].T
    assert unpack("x", 1, pack("x", 1, view), npt.NDArray[np.int64]).tolist() == view.tolist()


def test_truncated_or_damaged_state_is_refused() -> None:
    good = pack("bank", 1, bank())
    damaged = [good[:cut] for cut in range(len(good))] + [good + b"x"]
    damaged += [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(len(good))]
    for bad in damaged:
        with pytest.raises(StateUnreadable):
            unpack("bank", 1, bad, Bank)


@pytest.mark.parametrize(("component", "number"), [("judge", 1), ("bank", 2), ("bank", fingerprint(1, "a column"))])
def test_state_of_another_component_or_format_is_refused(component: str, number: Any) -> None:
    with pytest.raises(StateUnreadable, match=r"written by .*numpy \d.*this version reads format"):
        unpack(component, number, pack("bank", 1, []), list[int])


def test_a_column_more_is_another_format() -> None:
    assert fingerprint(1, ("a", "b")) == fingerprint(1, ("a", "b"))
    assert len({fingerprint(1, ("a", "b")), fingerprint(1, ("b", "a")), fingerprint(2, ("a", "b"))}) == 3


@pytest.mark.parametrize("data", [b"", b"TGS1", MAGIC, b"nonsense" * 10, pickle.dumps({}), None])
def test_state_that_is_not_ours_is_a_cold_start(data: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert unpack_or_cold("bank", 1, data, Bank) is None
    assert ("cold start" in capsys.readouterr().out) == (data is not None)


# ------------------------------------------------------------------ state that somebody else wrote
def forged(content: bytes) -> bytes:
    """A valid envelope around anything."""
    header = msgspec.msgpack.encode(("bank", "1", {}))
    checksum = zlib.crc32(content, zlib.crc32(header))
    return struct.pack(">4sIIQ", MAGIC, checksum, len(header), len(content)) + header + content


class Runs:
    """Pickled, it calls something when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.reduced


@pytest.mark.parametrize(
    "attack",
    [
        lambda mark: Runs(os.mkdir, mark),
        lambda mark: Runs(partial(os.mkdir, mark)),
        lambda mark: Runs(eval, f"__import__('os').mkdir({mark!r})"),
        lambda mark: Runs(getattr, Runs(__import__, "os"), "system"),
        lambda mark: np.array([Runs(os.mkdir, mark)], dtype=object),
    ],
)
def test_a_forged_state_runs_no_code(attack: Any, tmp_path: Path) -> None:
    mark = str(tmp_path / "intruder")
    evil = pickle.dumps(attack(mark))
    arrays = [("|O", [1], evil), ("O", [1], evil), ("|V8", [1], b"12345678"), ("<U2", [1], b"12345678")]
    arrays += [("<f8", [2**40], b""), ("<f8", [-1], b""), ("<f8", "ab", b"12345678"), (evil, [1], evil)]
    for content in (evil, *map(msgspec.msgpack.encode, [*arrays, msgspec.msgpack.Ext(5, evil), evil])):
        for kind in (Bank, npt.NDArray[np.float64], npt.NDArray[Any], dict[str, npt.NDArray[Any]]):
            with pytest.raises(StateUnreadable):
                unpack("bank", 1, forged(content), kind)
    assert not os.path.exists(mark)


@given(st.binary(max_size=200))
def test_any_bytes_in_a_valid_envelope_are_refused_or_read(content: bytes) -> None:
    with contextlib.suppress(StateUnreadable):
        assert isinstance(unpack("bank", 1, forged(content), Bank), Bank)


def test_a_deeply_nested_state_is_refused() -> None:
    with pytest.raises(StateUnreadable):
        unpack("bank", 1, forged(b"\x91" * 100_000 + b"\x01"), list[Any])


# ------------------------------------------------------------------ where it lies
def test_directories_of_state_are_for_their_owner_alone(tmp_path: Path) -> None:
    loose = tmp_path / "state" / "process-0"
    loose.mkdir(parents=True)
    loose.chmod(0o777)
    fresh = tmp_path / "new" / "recovery"
    check_parent(fresh.parent)
    for directory in (loose, fresh):
        make_private(directory)
        assert directory.stat().st_mode & 0o777 == 0o700
    assert fresh.parent.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BadSettings, match="chmod o-w"):
        check_parent(tmp_path)


def test_a_group_that_may_write_to_the_state_directory_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o770)
    check_parent(tmp_path)
    assert "the group may write" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_state_that_belongs_to_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(BadSettings, match="belongs to user 12345"):
        make_private(tmp_path)
