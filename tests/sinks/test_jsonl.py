from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import msgspec
import pytest

from schemas.errors import BadSettings, DeliveryFailed
from schemas.incident import Incident
from sinks.jsonl import JsonLines
from tests.sinks.incidents import incident


def lines(path: Path) -> list[Incident]:
    return [msgspec.json.decode(line, type=Incident) for line in path.read_bytes().splitlines()]


def test_one_line_per_revision_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    sink = JsonLines("file", path)
    sink.write([incident(1, 1), incident(2, 1)])
    sink.write([incident(1, 2, "resolved")])
    sink.close()
    assert lines(path) == [incident(1, 1), incident(2, 1), incident(1, 2, "resolved")]


def test_writing_twice_equals_writing_once_also_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for _ in range(2):
        sink = JsonLines("file", path)
        sink.write([incident(1), incident(1), incident(2)])
        sink.write([incident(2), incident(1)])
        sink.close()
    assert lines(path) == [incident(1), incident(2)]


@pytest.mark.parametrize("keep", [1, 40, -1])
def test_torn_last_line_is_removed_and_written_again(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonLines("file", path)
    sink.write([incident(1)])
    whole = path.read_bytes()
    sink.write([incident(2)])
    sink.close()
    torn = path.read_bytes()[len(whole) :][:keep]
    path.write_bytes(whole + torn)
    sink = JsonLines("file", path)
    sink.write([incident(1), incident(2)])
    sink.close()
    assert lines(path) == [incident(1), incident(2)]


def test_foreign_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"# a note\n\xff\n{}\n")
    sink = JsonLines("file", path)
    sink.write([incident()])
    sink.close()
    assert path.read_bytes().startswith(b"# a note\n\xff\n{}\n")
    assert len(path.read_bytes().splitlines()) == 4


def test_rotated_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonLines("file", path)
    sink.write([incident(1)])
    path.rename(tmp_path / "out.jsonl.1")
    sink.write([incident(2)])
    sink.close()
    assert lines(path) == [incident(2)]
    assert lines(tmp_path / "out.jsonl.1") == [incident(1)]


def test_full_disk_is_retryable_and_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonLines("file", path)
    sink.write([incident(1)])
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
    try:
        with pytest.raises(DeliveryFailed) as caught:
            sink.write([incident(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.retryable
    assert path.read_bytes() == before
    sink.write([incident(2)])
    assert lines(path) == [incident(1), incident(2)]
    sink.close()


def test_path_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="cannot write"):
        JsonLines("file", tmp_path)
    assert os.path.isdir(tmp_path)
