"""The published traces under `shared/data`, read with our formats and, for comparison, without them."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from schemas.errors import BadEvent, Reason
from schemas.formats import get_format
from schemas.gpu_event import GpuEvent
from schemas.request_event import RequestEvent
from schemas.timestamps import to_ns

DATA = Path(os.environ.get("TIDEGAUGE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def opened(path: str) -> BinaryIO:
    if not (DATA / path).exists():
        pytest.skip("shared/data is not here")
    return cast(BinaryIO, gzip.open(DATA / path))


def rows(path: str) -> list[dict[str, str]]:
    """The file read without our code."""
    with opened(path) as file:
        return list(csv.DictReader(io.TextIOWrapper(file, "utf-8", newline="")))


def events(name: str, path: str) -> list[RequestEvent | GpuEvent]:
    format_ = get_format(name)
    with opened(path) as file:
        return [event for line in format_.lines(file) for event in format_.decode(line)]


def requests(name: str, path: str) -> list[RequestEvent]:
    found = events(name, path)
    assert all(isinstance(event, RequestEvent) for event in found)
    return found  # type: ignore[return-value]


def gpus(name: str, path: str) -> list[GpuEvent]:
    found = events(name, path)
    assert all(isinstance(event, GpuEvent) for event in found)
    return found  # type: ignore[return-value]


def one(name: str, line: str) -> RequestEvent:
    (event,) = get_format(name).decode(line.encode())
    assert isinstance(event, RequestEvent)
    return event


def refusal(name: str, line: str) -> Reason:
    with pytest.raises(BadEvent) as refused:
        list(get_format(name).decode(line.encode()))
    return refused.value.reason


def assert_in_order(found: Sequence[RequestEvent | GpuEvent]) -> None:
    assert all(to_ns(a.at) <= to_ns(b.at) for a, b in pairwise(found))
