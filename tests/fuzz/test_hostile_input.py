"""Bad input of every form, for every format: never an exception, never a stall, each refusal a dead letter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.banks import MAX_EMPTY
from schemas.errors import Reason
from schemas.formats import FORMATS, get_format
from schemas.gpu_event import GpuEvent
from schemas.request_event import RequestEvent
from tests.fuzz import whole
from tests.fuzz.rules import events_of, fed, good, hold
from tests.fuzz.seeds import NAMES, ODD, corpus, samples
from tests.servers.cache import missing

ROOT = Path(__file__).resolve().parents[2]
SHORT_RUNS = 10_000
STREAM_FIELDS = {"requests": RequestEvent.__struct_fields__, "gpus": GpuEvent.__struct_fields__}


def is_object(name: str) -> bool:
    return samples(name)[0].startswith(b"{")


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A sample whose fields, columns or bytes were replaced by odd values, some of them repeated or missing."""
    sample = draw(st.sampled_from(samples(name)))
    odd = st.sampled_from(ODD)
    if is_object(name):
        known: dict[str, Any] = json.loads(sample)
        fields = [(key, json.dumps(value).encode()) for key, value in known.items()]
        names = st.sampled_from([*known, *STREAM_FIELDS[FORMATS[name].stream], "prompt", "", "\\ud800", "x" * 300])
        number = st.integers(-(2**70), 2**70).map(lambda n: str(n).encode())
        real = st.floats().map(lambda x: repr(x).encode())
        fields += draw(st.lists(st.tuples(names, odd | number | real), max_size=4))
        fields = draw(st.permutations(fields))
        whole_object = b"{" + b",".join(b'"' + key.encode() + b'":' + value for key, value in fields) + b"}"
        return whole_object[: draw(st.integers(0, len(whole_object)) | st.just(len(whole_object)))]
    columns = sample.split(b",")
    for at in draw(st.lists(st.integers(0, len(columns) - 1), max_size=3)):
        columns[at] = draw(odd | st.floats().map(lambda x: repr(x).encode()) | st.integers().map(lambda n: b"%d" % n))
    line = b",".join(columns)
    at = draw(st.integers(0, len(line)))
    return line[:at] + draw(odd | st.just(b"")) + line[at + draw(st.integers(0, 6)) :]


@pytest.mark.parametrize("name", NAMES)
def test_past_findings_and_samples_keep_the_rules(name: str) -> None:
    for payload in [*samples(name), *corpus(name), *ODD]:
        hold(name, payload)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_bad_message_becomes_a_dead_letter_and_costs_only_itself(name: str, data: st.DataObject) -> None:
    hold(name, data.draw(damaged(name) | st.binary(max_size=80)))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_whatever_is_accepted_passes_the_whole_flow(name: str, data: st.DataObject) -> None:
    messages = data.draw(st.lists(damaged(name) | st.sampled_from(samples(name)), min_size=1, max_size=6))
    whole.run(name, [[m for m in messages if events_of(name, m) is not None]])


BIG = 1_000_000
LONG: dict[str, bytes] = {
    "one text of 1 MB": b'{"team":"' + b"x" * BIG + b'"}',
    "arrays in arrays": b"[" * BIG,
    "objects in objects": b'{"a":' * (BIG // 5),
    "quotation marks": b'"' * BIG,
    "escapes": b'{"a":"' + b"\\" * BIG,
    "unknown fields": b"{" + b",".join(b'"f%d":1' % i for i in range(BIG // 12)) + b"}",
    "one field again and again": b"{" + b",".join([b'"status":200'] * (BIG // 13)) + b"}",
    "sensitive names without an end": b'"prompt":"' * (BIG // 10),
    "names only": b"a.b/c-" * (BIG // 6),
    "almost a secret": b"sk-" * (BIG // 3),
    "digits": b"9" * BIG,
    "commas": b"," * BIG,
    "CSV quotes": b'"a",' * (BIG // 4) + b'"',
    "blanks": b" " * BIG,
    "NUL": b"\x00" * BIG,
    "invalid UTF-8": b"\xff" * BIG,
    "a million in an array": b'{"hash_ids":[' + b"1," * (BIG // 2) + b"1]}",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_megabyte_of_anything_is_refused_or_read_without_a_stall(name: str) -> None:
    for kind, payload in LONG.items():
        batch = hold(name, payload[:BIG])
        assert batch is None or sum(len(d.payload) for d in batch.dead) <= 2048 * len(batch.dead), kind


@pytest.mark.parametrize("name", NAMES)
def test_messages_above_the_accepted_size_and_tombstones_are_refused_unread(name: str) -> None:
    batch = fed(name, [(0, b"x" * 1_048_577), (1, None)])  # type: ignore[list-item]
    assert [d.reason for d in batch.dead] == [Reason.TOO_LARGE, Reason.EMPTY]


@pytest.mark.parametrize("name", [n for n in NAMES if is_object(n) and "at" in json.loads(samples(n)[0])])
@pytest.mark.parametrize("at", ["2099-12-31T23:59:59Z", "2000-01-01T00:00:00Z", 4102444799, 946684800, -1, 0])
def test_a_clock_that_is_decades_off_moves_no_watermark(name: str, at: Any) -> None:
    payload, at_ns = good(name)
    batch = fed(name, [(0, payload), (1, json.dumps({**json.loads(payload), "at": at}).encode()), (2, payload)])
    assert batch.watermark_ns == at_ns - 5_000_000_000
    assert batch.columns.lateness[batch.columns.offsets != 1].tolist() == [0, 0]
    assert [d.offset for d in batch.dead] == [1]


@pytest.mark.parametrize("name", ["request", "gpu"])
def test_one_message_from_the_far_past_makes_no_windows_in_between(name: str) -> None:
    payload, _ = good(name)
    far = json.dumps({**json.loads(payload), "at": "2000-01-01T00:00:00Z"}).encode()
    for blocks in ([[far], [payload]], [[payload], [far]], [[far, payload, far, payload]]):
        outcome = whole.run(name, blocks)
        assert len(outcome.requests) + len(outcome.gpus) < 40
        assert len(outcome.reports) < 3 * MAX_EMPTY


def test_a_message_of_a_hundred_thousand_events_keeps_every_position() -> None:
    batch = fed("servegen", [(1, b"m,3,600,166.0,0.9,Weibull")])
    assert len(batch.columns) == 99_600
    assert batch.columns.positions.tolist() == list(range(99_600))
    assert not batch.dead


def test_refusals_never_name_a_value() -> None:
    for name in NAMES:
        for payload in ODD:
            for letter in fed(name, [(1, payload + b"hunter2hunter2")]).dead:
                assert "hunter2" not in letter.detail


@pytest.mark.slow
def test_coverage_guided_search_finds_nothing(tmp_path: Path) -> None:
    try:
        import atheris  # noqa: F401
    except ImportError:
        missing("fuzzing: atheris is not installed")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz",
            "--runs",
            str(SHORT_RUNS),
            "--seed",
            "1",
            "--out",
            str(tmp_path / "found"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4_000:]
    assert f"stat::number_of_executed_units: {SHORT_RUNS}".encode() in done.stderr


def test_every_format_of_the_registry_is_searched() -> None:
    assert set(NAMES) == set(FORMATS)
    assert all(msgspec.structs.fields(type(next(iter(get_format(n).decode(good(n)[0]))))) for n in NAMES)
