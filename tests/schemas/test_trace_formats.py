from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadSettings, Reason
from schemas.formats import get_format
from schemas.formats.mooncake import prefix_of
from schemas.request_event import RequestEvent
from schemas.timestamps import to_ns
from tests.traces import assert_in_order, one, opened, refusal, requests, rows

# ---------------------------------------------------------------- azure-llm


@pytest.mark.parametrize(
    ("kind", "count", "input_tokens", "output_tokens"),
    [("code", 6_118, 12_460_506, 166_437), ("conv", 11_997, 15_050_169, 2_457_675)],
)
def test_azure_keeps_every_row_and_token(kind: str, count: int, input_tokens: int, output_tokens: int) -> None:
    path = f"requests/azure_llm_2023_{kind}.csv.gz"
    table, found = rows(path), requests("azure-llm", path)
    assert len(found) == len(table) == count
    assert sum(e.input_tokens or 0 for e in found) == sum(int(r["ContextTokens"]) for r in table) == input_tokens
    assert sum(e.output_tokens or 0 for e in found) == sum(int(r["GeneratedTokens"]) for r in table) == output_tokens
    assert [str(e.at) for e in found] == [r["TIMESTAMP"].replace(" ", "T") + "Z" for r in table]
    assert_in_order(found)


def test_azure_time_keeps_seven_digits_and_reads_as_utc() -> None:
    event = one("azure-llm", "2023-11-16 18:17:03.9799600,4808,10")
    assert event == RequestEvent(
        at="2023-11-16T18:17:03.9799600Z",
        provider="azure.ai.openai",
        model="azure-llm-2023",
        status=200,
        input_tokens=4808,
        output_tokens=10,
    )
    assert to_ns(event.at) == 1_700_158_623_979_960_000


def test_azure_time_zone_is_kept_where_the_trace_of_2024_gives_one() -> None:
    assert one("azure-llm", "2024-05-10 00:00:00.009930+00:00,1,2").at == "2024-05-10T00:00:00.009930+00:00"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("yesterday,1,2", Reason.BAD_TIMESTAMP),
        ("2023-11-16 18:17:03.9799600,-1,2", Reason.OUT_OF_RANGE),
        ("2023-11-16 18:17:03.9799600,1.5,2", Reason.WRONG_TYPE),
        ("2023-11-16 18:17:03.9799600,,2", Reason.MISSING_FIELD),
        ("2023-11-16 18:17:03.9799600,1", Reason.NOT_PARSABLE),
        ('2023-11-16 18:17:03.9799600,"1,2', Reason.NOT_PARSABLE),
        ("", Reason.EMPTY),
        ("1," * 70_000, Reason.TOO_LARGE),
    ],
)
def test_a_csv_line_is_refused_for_its_reason(line: str, reason: Reason) -> None:
    assert refusal("azure-llm", line) is reason


# ---------------------------------------------------------------- burstgpt

BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
19440110.0,1722ac82-0a46-4bf0-aa08-89794e7a2b3f,43,GPT-4,906,446,1352,Conversation log
19440161.5,,2,ChatGPT,36,0,36,API log
"""


def burstgpt(text: str) -> list[RequestEvent]:
    format_ = get_format("burstgpt")
    return [e for line in format_.lines(io.BytesIO(text.encode())) for e in format_.decode(line)]  # type: ignore[misc]


def test_burstgpt_reads_release_2_and_marks_rows_without_response_as_failed() -> None:
    assert burstgpt(BURSTGPT) == [
        RequestEvent(
            at=(1_672_531_200 + 19_440_110) * 10**9,
            provider="azure.ai.openai",
            model="GPT-4",
            product="Conversation log",
            status=200,
            input_tokens=906,
            output_tokens=446,
            latency_ms=43_000.0,
        ),
        RequestEvent(
            at=(1_672_531_200 + 19_440_161) * 10**9 + 500_000_000,
            provider="azure.ai.openai",
            model="ChatGPT",
            product="API log",
            status=0,
            error_type="no_response_tokens",
            input_tokens=36,
            output_tokens=0,
            latency_ms=2_000.0,
        ),
    ]


def test_burstgpt_reads_release_1_without_latency() -> None:
    old = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"
    )
    (event,) = burstgpt(old)
    assert (event.at, event.input_tokens, event.output_tokens) == (1_672_531_205 * 10**9, 472, 18)
    assert event.latency_ms is None


def test_burstgpt_finds_columns_by_the_header() -> None:
    table = list(csv.DictReader(io.StringIO(BURSTGPT)))
    names = ["Log Type", "Total tokens", "extra", "Model", "Response tokens", "Request tokens", "Timestamp"]
    out = io.StringIO()
    writer = csv.DictWriter(out, names, extrasaction="ignore", restval='a, "b"')
    writer.writeheader()
    writer.writerows(table)
    kept = [(e.at, e.model, e.product, e.status, e.input_tokens, e.output_tokens) for e in burstgpt(BURSTGPT)]
    moved = [(e.at, e.model, e.product, e.status, e.input_tokens, e.output_tokens) for e in burstgpt(out.getvalue())]
    assert moved == kept


def test_burstgpt_line_that_does_not_fit_a_moved_header_reaches_decode() -> None:
    header = "Model,Timestamp,Request tokens,Response tokens,Total tokens,Log Type"
    lines = list(get_format("burstgpt").lines(io.BytesIO(f"{header}\nGPT-4,5\nGPT-4,5,1,2,3,API log\n".encode())))
    assert lines == [b"GPT-4,5", b"5,,,GPT-4,1,2,3,API log"]
    assert refusal("burstgpt", "GPT-4,5") is Reason.NOT_PARSABLE


# ---------------------------------------------------------------- mooncake


@pytest.mark.parametrize(
    ("kind", "count", "input_tokens", "output_tokens", "reusable", "found_share"),
    [
        ("conversation", 6_758, 85_097_411, 2_344_538, 29_974_325, 0.54),
        ("synthetic", 2_254, 28_318_557, 427_740, 10_491_585, 0.73),
    ],
)
def test_mooncake_keeps_every_token_and_finds_only_true_repetitions(
    kind: str, count: int, input_tokens: int, output_tokens: int, reusable: int, found_share: float
) -> None:
    path = f"requests/mooncake_{kind}.jsonl.gz"
    with opened(path) as file:
        table = [json.loads(line) for line in file]
    found = requests("mooncake", path)
    assert len(found) == len(table) == count
    assert sum(e.input_tokens or 0 for e in found) == sum(r["input_length"] for r in table) == input_tokens
    assert sum(e.output_tokens or 0 for e in found) == sum(r["output_length"] for r in table) == output_tokens
    assert [e.at for e in found] == [1_735_689_600_000 + r["timestamp"] for r in table]
    assert all(e.cache_read_tokens is None for e in found)
    assert_in_order(found)

    blocks: set[int] = set()
    prefixes: set[str] = set()
    could = did = 0
    for row, event in zip(table, found, strict=True):
        leading = next((n for n, block in enumerate(row["hash_ids"]) if block not in blocks), len(row["hash_ids"]))
        could += min(512 * leading, row["input_length"])
        if event.prefix_hash in prefixes:
            assert event.prefix_tokens is not None
            assert event.prefix_tokens <= 512 * leading
            did += event.prefix_tokens
        blocks.update(row["hash_ids"])
        prefixes.add(event.prefix_hash or "none")
    assert could == reusable
    assert did / could == pytest.approx(found_share, abs=0.005)


@given(st.lists(st.integers(0, 10**6), max_size=150), st.integers(0, 511), st.lists(st.integers(), max_size=5))
@settings(max_examples=100, deadline=None)
def test_mooncake_prefix_covers_full_blocks_only(blocks: list[int], rest: int, more: list[int]) -> None:
    digest, tokens = prefix_of([*blocks, 7], 512 * len(blocks) + rest)
    assert (digest is None) == (tokens is None) == (not blocks)
    if tokens is not None:
        assert tokens in {512 * 2**n for n in range(7)}
        assert tokens <= 512 * len(blocks)
        same = prefix_of([*blocks[: tokens // 512], *more], tokens)
        assert same == (digest, tokens)


# ---------------------------------------------------------------- headers

CSV_FORMATS = (
    "azure-llm", "burstgpt", "llmperf", "servegen", "vllm-load-test", "vllm-load-test-engine", "vllm-load-test-gpu",
)  # fmt: skip


@pytest.mark.parametrize("name", CSV_FORMATS)
@pytest.mark.parametrize("file", [b"", b"timestamp,value\n1,2\n", b'{"at": 1}\n', b"\xff\xfe\x00\x01" * 300])
def test_another_header_is_refused_before_any_line_and_the_expected_one_is_shown(name: str, file: bytes) -> None:
    with pytest.raises(BadSettings, match=f"^{name}: expected the header '[A-Za-z].*', got "):
        get_format(name).lines(io.BytesIO(file))


def test_byte_order_mark_blank_lines_and_windows_line_ends_do_not_matter() -> None:
    file = b"\xef\xbb\xbfTIMESTAMP,ContextTokens,GeneratedTokens\r\n\r\n2023-11-16 18:17:03,1,2\r\n\r\n"
    assert list(get_format("azure-llm").lines(io.BytesIO(file))) == [b"2023-11-16 18:17:03,1,2"]
