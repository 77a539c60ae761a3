"""What every input format keeps, whatever it reads. A new format adds sample messages to `SAMPLES`."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadEvent, BadSettings, Reason
from schemas.formats import FORMATS, get_format
from schemas.gpu_event import GpuEvent
from schemas.request_event import RequestEvent

SAMPLES: dict[str, list[bytes]] = {
    "azure-llm": [b"2023-11-16 18:17:03.9799600,4808,10", b"2024-05-10 00:00:00.009930+00:00,1,2"],
    "burstgpt": [
        b"19440110.0,1722ac82-0a46-4bf0-aa08-89794e7a2b3f,43,GPT-4,906,446,1352,Conversation log",
        b"5,ChatGPT,472,0,490,API log",
    ],
    "gpu": [b'{"at":"2026-01-01T00:00:00Z","node":"n1","gpu_index":3,"util":0.5,"util_source":"sm_active"}'],
    "llmperf": [
        b"bedrock,llama-2-70b-chat,7,-100.0,Output too few tokens 97,0.5,4.25,0.04,550,97",
        b'lepton,llama-2-70b-chat,9,429.0,"a ""quoted"", message",0.0,0.0,0.0,550,1',
    ],
    "mooncake": [b'{"timestamp":27482,"input_length":6955,"output_length":52,"hash_ids":[46,47,48,2353,2354]}'],
    "request": [
        b'{"at":1767225600.25,"provider":"openai","model":"m","status":200,"input_tokens":5,"cost_usd":"0.01"}',
        b'{"at":"2026-01-01T00:00:00Z","provider":"p","model":"m","status":429,"error_message":"slow down"}',
    ],
    "servegen": [b"deepseek-r1,0,2400,0.085,6.69324,Gamma", b"m-mid,3,600,1.25,0.9,Weibull,17"],
    "vllm-load-test": [
        b"100,0,409,1024,476,472,1024,0.0323,0.0326,14592657.846643506,0.9168701171875,22533,0,40",
    ],
    "vllm-load-test-engine": [b"100,14592658.34,1600.89,33.93,1.0,0.0,0.0,0.1433217573452383,0.0"],
    "vllm-load-test-gpu": [b"100,2,14592659.269814933,22533,24576,74,48"],
}
STREAMS = {"requests": RequestEvent, "gpus": GpuEvent}
DECODERS = {stream: msgspec.json.Decoder(event) for stream, event in STREAMS.items()}
NAMES = sorted(FORMATS)
DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
MOST_EVENTS = 2_000
"""Of one message, in these tests; a window of `servegen` may hold millions."""


def refusal(name: str, payload: bytes) -> BadEvent | None:
    try:
        events(name, payload)
    except BadEvent as refused:
        return refused
    return None


def events(name: str, payload: bytes) -> list[RequestEvent | GpuEvent]:
    found = []
    for event in get_format(name).decode(payload):
        found.append(event)
        if len(found) == MOST_EVENTS:
            break
    return found


def check(name: str, payload: bytes) -> None:
    """Decode, and hold the result against the contract."""
    stream = FORMATS[name].stream
    refused = refusal(name, payload)
    if refused is not None:
        assert isinstance(refused.reason, Reason)
        assert refused.detail
        return
    for event in events(name, payload):
        assert isinstance(event, STREAMS[stream])
        assert DECODERS[stream].decode(msgspec.json.encode(event)) == event  # all constraints of the schema hold


def test_every_format_has_samples() -> None:
    assert set(FORMATS) <= set(SAMPLES), "add a sample message of the new format to SAMPLES"


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_documented(name: str) -> None:
    headings = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert any(f"`{name}`" in heading for heading in headings), f"describe {name} in docs/formats.md"


@pytest.mark.parametrize("name", NAMES)
def test_format_is_called_as_in_the_table(name: str) -> None:
    assert get_format(name).name == FORMATS[name].name == name
    assert FORMATS[name].stream in STREAMS


def test_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadSettings, match=r"azure-llm.*vllm-load-test-gpu"):
        get_format("nope")


@pytest.mark.parametrize("name", NAMES)
def test_samples_give_valid_events(name: str) -> None:
    for sample in SAMPLES[name]:
        assert events(name, sample)
        check(name, sample)


@pytest.mark.parametrize("name", NAMES)
@given(payload=st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
@settings(max_examples=60, deadline=None)
def test_garbage_gives_events_or_bad_event(name: str, payload: bytes) -> None:
    check(name, payload)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_damaged_message_gives_events_or_bad_event(name: str, data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(SAMPLES[name]))
    start = data.draw(st.integers(0, len(sample)))
    end = data.draw(st.integers(start, min(len(sample), start + 12)))
    odd = st.sampled_from([b"", b"-1", b"nan", b"1e999", b"null", b"\xff", b'"', b"\n", b"\x00", b",,", b"[" * 2_000,
                           b"9" * 400, "١".encode(), b"1_0", b"true", b"{}", b"Infinity"])  # fmt: skip
    check(name, sample[:start] + data.draw(odd | st.binary(max_size=4)) + sample[end:])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("payload", [b"", b"   ", b"\n"])
def test_message_without_content_is_empty(name: str, payload: bytes) -> None:
    with pytest.raises(BadEvent) as refused:
        events(name, payload)
    assert refused.value.reason is Reason.EMPTY


@pytest.mark.parametrize("name", NAMES)
def test_refusal_is_raised_by_decode_itself(name: str) -> None:
    # a generator that raises at its first step would slip past the caller's `except`
    with pytest.raises(BadEvent):
        get_format(name).decode(b"\xff\xfe")


@pytest.mark.parametrize("name", NAMES)
def test_refusal_never_repeats_the_message(name: str) -> None:
    for sample in SAMPLES[name]:
        for word in re.finditer(rb"[A-Za-z0-9.:-]+", sample):
            refused = refusal(name, sample[: word.start()] + b"sk-SECRET" + sample[word.end() :])
            assert "SECRET" not in str(refused)


@pytest.mark.parametrize("name", NAMES)
def test_decoding_depends_on_nothing_but_the_message(name: str) -> None:
    messages = SAMPLES[name] * 3 + [b"garbage"] + SAMPLES[name]
    alone = {sample: events(name, sample) for sample in SAMPLES[name]}
    random.Random(7).shuffle(messages)
    shared = get_format(name)
    for message in messages:
        if message == b"garbage":
            with pytest.raises(BadEvent):
                list(shared.decode(message))
        else:
            assert list(shared.decode(message)) == alone[message]


@pytest.mark.parametrize("name", NAMES)
@given(content=st.binary(max_size=400))
@settings(max_examples=40, deadline=None)
def test_any_file_gives_lines_or_bad_settings(name: str, content: bytes) -> None:
    refused = ""
    lines: list[bytes] = []
    try:
        lines = list(get_format(name).lines(io.BytesIO(content)))
    except BadSettings as error:
        refused = str(error)
    assert refused.startswith(f"{name}: ") or not refused
    assert all(line.strip() for line in lines)
