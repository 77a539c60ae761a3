from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.dead_letter import MAX_PAYLOAD_CHARS
from schemas.redaction import REMOVED, redact, redact_text

alnum = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=20, max_size=40)
upper = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=16, max_size=16)
secrets = st.one_of(
    alnum.map(lambda s: f"sk-proj1-{s}"),
    alnum.map(lambda s: f"sk-ant-api03-{s}"),
    upper.map(lambda s: f"AKIA{s}"),
    st.tuples(alnum, alnum, alnum).map(lambda p: f"eyJ{p[0]}.eyJ{p[1]}.{p[2]}"),
    alnum.map(lambda s: f"ghp_{s}"),
    alnum.map(lambda s: f"AIza{s}"),
    alnum.map(lambda s: f"xoxb-1{s}"),
)
CONTENT_FIELDS = [
    "messages", "prompt", "input", "output", "completion", "content", "response", "system_instructions",
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt.0.content", "llm.input_messages", "input.value",
    "systemInstruction", "tool_calls", "arguments",
]  # fmt: skip
SECRET_FIELDS = ["password", "api_key", "Authorization", "x-api-key", "access_token", "client_secret", "apiKey"]
MARK = "walrus"
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
leaf = st.one_of(st.none(), st.booleans(), st.integers(), plain)
content = st.one_of(
    plain.map(lambda t: MARK + t + MARK),
    plain.map(
        lambda t: [{"role": "user", "content": f"{MARK}{t}"}, f'"{MARK}'],
    ),
    plain.map(lambda t: {"text": f"{t}{MARK}", MARK: [[MARK]]}),
)
around = st.dictionaries(plain.filter(lambda k: MARK not in k), leaf, max_size=3)


@given(secrets, plain, plain)
def test_a_planted_secret_never_survives_in_text(secret: str, before: str, after: str) -> None:
    for text in (f"{before}{secret}{after}", f"{before} {secret} {after}", f"{before}: {secret}, {after}"):
        assert secret not in redact(text, 10_000)
        assert secret not in redact_text(text, 512)


@given(secrets, around, around, st.integers(0, 4))
def test_a_planted_secret_never_survives_in_json(
    secret: str, before: dict[str, object], after: dict[str, object], d: int
) -> None:
    value: object = secret
    for _ in range(d):
        value = json.dumps({"deeper": value}) if d % 2 else {"list": [value]}
    whole = json.dumps({**before, "note": value, **after})
    assert secret not in redact(whole, 10_000)
    assert secret not in redact(whole[:-1], 10_000)


@given(st.sampled_from(SECRET_FIELDS), plain, around)
def test_the_value_of_a_secret_field_never_survives(name: str, value: str, before: dict[str, object]) -> None:
    whole = json.dumps({**before, name: MARK + value})
    for text in (whole, whole[:-1], f"failed with {name}={MARK}{value}", f"{name}: {MARK} {value}"):
        assert MARK not in redact(text, 10_000)


@given(st.sampled_from(CONTENT_FIELDS), content, around, around, st.booleans(), st.data())
def test_content_never_survives_even_in_cut_json(
    name: str, value: object, before: dict[str, object], after: dict[str, object], ascii_only: bool, data: st.DataObject
) -> None:
    whole = json.dumps({**before, name: value, **after}, ensure_ascii=ascii_only).encode("utf-8", "replace")
    assert MARK not in redact(whole, 10_000)
    cut = data.draw(st.integers(0, len(whole)))
    assert MARK not in redact(whole[:cut], 10_000)
    assert MARK not in redact(b"\xff" + whole[:cut] + b"\xfe", 10_000)
    assert MARK not in redact(json.dumps({"nested": whole[:cut].decode("utf-8", "replace")}), 10_000)
    assert MARK not in redact(repr({**before, name: value})[:cut], 10_000)


@pytest.mark.parametrize("name", CONTENT_FIELDS)
def test_content_in_otlp_attributes_is_removed(name: str) -> None:
    attribute = {"key": name, "value": {"stringValue": MARK}}
    whole = json.dumps({"attributes": [attribute, {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "7"}}]})
    assert MARK not in redact(whole)
    assert '"intValue":"7"' in redact(whole)
    assert MARK not in redact(whole[:-1])


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)), st.integers(0, 50))
@example("\ud800", 10)
@example(b"[" * 5_000, 50)
@example(b'{"a":' * 500 + b"1" + b"}" * 500, 50)
def test_anything_is_redacted_within_the_limit_and_is_valid_text(raw: bytes | str, limit: int) -> None:
    shown = redact(raw, limit)
    assert len(shown) <= limit
    shown.encode("utf-8")


@pytest.mark.parametrize(
    "text",
    ["a" * 10**6, "sk-" * 10**5, '"' * 10**5, "a:" * 10**5, 'prompt="\\' * 10**4, "\\" * 10**5, "eyJaaaaaaaa" * 10**4],
    ids=lambda t: t[:8],
)
def test_a_hostile_text_is_only_read_at_its_beginning(text: str) -> None:
    assert len(redact(text)) <= MAX_PAYLOAD_CHARS


def test_a_secret_halved_by_the_reading_limit_is_not_shown() -> None:
    for length in range(8_150, 8_200):
        shown = redact_text("x" * 100 + "prompt: " + "y" * length, 10_000)
        assert "y" not in shown
        shown = redact_text("word " * (length // 5) + "z" * (length % 5) + " sk-0123456789abcdef0123", 10_000)
        assert "sk-0" not in shown


def test_what_is_harmless_stays_readable() -> None:
    event = {
        "at": "2026-01-01T00:00:00Z", "team": "risk-assessment", "model": "gpt-x", "input_tokens": 5,
        "output_tokens": 6, "api_key_id": "key-7", "prompt_name": "greeting", "prompt_version": "3",
        "operation": "text_completion", "error_message": "Rate limit on tokens per min (TPM): Limit 10, Used 9",
    }  # fmt: skip
    assert orjson.loads(redact(orjson.dumps(event))) == event
    assert redact("upstream timed out after 30 s") == "upstream timed out after 30 s"


def test_what_was_cut_ends_in_an_ellipsis() -> None:
    assert redact("abc def", 5) == "abc …"
    assert redact(b'{"prompt":"x"}', 40) == '{"prompt":"' + REMOVED + '"}'
    assert redact(None) == redact(b"") == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc", f"Authorization: {REMOVED}"),
        ("sent Bearer abc, refused", f"sent {REMOVED}, refused"),
        ("postgres://user:pa55@host/db", f"postgres://{REMOVED}@host/db"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc", REMOVED),
        ('{"pro\\u006dpt":"diary", "x', f'{{"pro\\u006dpt":{REMOVED}, "x'),
        ("{'prompt': 'it's me', 'model': 'x'}", "{'prompt': " + REMOVED),
        ('{"prompt" "diary"', '{"prompt"' + REMOVED),
        ('{"input":7,"status":200,', '{"input":7,"status":200,'),
    ],
)
def test_texts_are_cut_where_the_end_of_a_value_is_uncertain(text: str, shown: str) -> None:
    assert redact(text) == shown
