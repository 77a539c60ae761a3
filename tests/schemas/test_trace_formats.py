from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadEvent, BadSettings, Reason
from schemas.formats import get_format
from schemas.formats.mooncake import prefix_of
from schemas.gpu_event import GpuEvent
from schemas.request_event import RequestEvent
from schemas.timestamps import to_ns

DATA = Path(os.environ.get("TIDEGAUGE_DATA", Path(__file__).parents[3] / "shared" / "data"))
MIB = 1024 * 1024


def opened(path: str) -> gzip.GzipFile:
    if not (DATA / path).exists():
        pytest.skip("shared/data is not here")
    return gzip.open(DATA / path)  # type: ignore[return-value]


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


def assert_in_order(found: list[RequestEvent] | list[GpuEvent]) -> None:
    assert all(to_ns(a.at) <= to_ns(b.at) for a, b in pairwise(found))


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


# ---------------------------------------------------------------- llmperf

LLMPERF = "requests/llmperf_providers_2023.csv.gz"


def test_llmperf_keeps_every_row_token_and_time() -> None:
    table, found = rows(LLMPERF), requests("llmperf", LLMPERF)
    assert len(found) == len(table) == 1_495
    assert sum(e.input_tokens or 0 for e in found) == sum(int(r["input_tokens"]) for r in table) == 822_250
    assert sum(e.output_tokens or 0 for e in found) == sum(int(r["output_tokens"]) for r in table) == 201_904
    assert len({e.event_id for e in found}) == 1_495
    for field, column in (("latency_ms", "end_to_end_latency_s"), ("ttft_ms", "ttft_s")):
        measured = sorted(getattr(e, field) for e in found if getattr(e, field) is not None)
        assert measured == sorted(float(r[column]) * 1e3 for r in table if float(r[column]) > 0)
        assert len(measured) == 1_362
    assert_in_order(found)


def test_llmperf_errors_keep_their_number_and_kind() -> None:
    found = Counter((e.provider, e.status, e.error_type, e.error_code) for e in requests("llmperf", LLMPERF))
    assert {key: n for key, n in found.items() if key[1] != 200 or key[2]} == {
        ("lepton", 429, None, "429"): 130,
        ("perplexity", 429, None, "429"): 2,
        ("aws.bedrock", 200, "output_too_short", "-100"): 49,
        ("together", 0, "benchmark_error", "-1"): 1,
    }
    assert sum(n for key, n in found.items() if key[1:] == (200, None, None)) == 1_313


def test_llmperf_rows_are_one_second_apart_by_number_and_providers_lie_side_by_side() -> None:
    found = requests("llmperf", LLMPERF)
    assert {e.at for e in found} == {(1_702_944_000 + n) * 10**9 for n in range(150)}
    assert len({e.provider for e in found[:10]}) == 8


def test_llmperf_quoted_message_keeps_its_commas() -> None:
    line = 'perplexity,llama,3,429.0,"{""error"":{""message"":""wait, please""}}",0.0,0.0,0.0,550,1'
    event = one("llmperf", line)
    assert (event.status, event.error_message) == (429, '{"error":{"message":"wait, please"}}')
    assert (event.latency_ms, event.ttft_ms) == (None, None)


def test_llmperf_line_that_cannot_be_read_stays_between_its_neighbours() -> None:
    header = (
        b"provider,model,request_no,error_code,error_msg,ttft_s,end_to_end_latency_s,inter_token_latency_s,"
        b"input_tokens,output_tokens\n"
    )
    a, b, bad = b"a,m,0,,,1,2,0.1,5,6", b"b,m,0,,,1,2,0.1,5,6", b"what is this"
    assert list(get_format("llmperf").lines(io.BytesIO(header + b"\n".join([a, bad, b])))) == [a, bad, b]


# ---------------------------------------------------------------- servegen

SERVEGEN = "requests/servegen_client_windows.csv.gz"
SERVEGEN_HEADER = b"model,client,window_start_s,rate_rps,interarrival_cv,arrival"


def servegen_of_one_day() -> bytes:
    with opened(SERVEGEN) as file:
        lines = file.read().splitlines(keepends=True)
    return b"".join([lines[0], *(line for line in lines if line.startswith((b"deepseek-r1,", b"mm-image,")))])


def servegen(file: io.BytesIO) -> Iterator[RequestEvent]:
    format_ = get_format("servegen")
    for line in format_.lines(file):
        yield from format_.decode(line)  # type: ignore[misc]


def test_servegen_day_has_as_many_requests_as_its_rates_say_and_stays_within_the_allowed_disorder() -> None:
    counts: Counter[tuple[str, str | None]] = Counter()
    newest = disorder = 0
    ids: set[str | None] = set()
    for event in servegen(io.BytesIO(servegen_of_one_day())):
        counts[event.model, event.user_id] += 1
        assert isinstance(event.at, int)
        disorder, newest = max(disorder, newest - event.at), max(newest, event.at)
        if event.model == "mm-image":
            ids.add(event.event_id)
    expected: Counter[tuple[str, str | None]] = Counter()
    for row in rows(SERVEGEN):
        if row["model"] in ("deepseek-r1", "mm-image"):
            expected[row["model"], "client-" + row["client"]] += round(float(row["rate_rps"]) * 600)
    assert counts == expected
    assert sum(n for (model, _), n in counts.items() if model == "deepseek-r1") == 524_931
    assert sum(n for (model, _), n in counts.items() if model == "mm-image") == len(ids) == 358_967
    assert disorder < 5 * 10**9  # default of windows.disorder_s


@given(st.integers(0, 5_000))
@settings(max_examples=60, deadline=None)
def test_servegen_slices_make_up_the_window_whatever_its_rate(count: int) -> None:
    line = f"m,3,1200,{count / 600:.5f},1.0,Gamma"
    whole = list(get_format("servegen").decode(line.encode()))
    sliced = list(servegen(io.BytesIO(SERVEGEN_HEADER + b"\n" + line.encode())))
    assert len(whole) == count
    assert sliced == whole
    start_ns = (1_735_689_600 + 1_200) * 10**9
    assert all(start_ns < e.at < start_ns + 600 * 10**9 for e in sliced)  # type: ignore[operator]
    steps = {b.at - a.at for a, b in pairwise(sliced)}  # type: ignore[operator]
    assert max(steps, default=0) - min(steps, default=0) <= 1
    assert all(e.input_tokens is None and e.output_tokens is None for e in sliced)


def test_servegen_event_lies_in_the_slice_that_its_line_names() -> None:
    for slice_no in range(120):
        for event in get_format("servegen").decode(f"m,3,0,0.36667,1.0,Gamma,{slice_no}".encode()):
            second = (int(event.at) - 1_735_689_600 * 10**9) / 10**9
            assert slice_no * 5 <= second < slice_no * 5 + 5


def test_servegen_line_that_cannot_be_read_is_passed_on_once() -> None:
    file = SERVEGEN_HEADER + b"\nm,1,600,0.005,1,Gamma\nbad\nm,1,0,0.005,1,Gamma\n"
    assert list(get_format("servegen").lines(io.BytesIO(file))).count(b"bad") == 1
    assert refusal("servegen", "bad") is Reason.NOT_PARSABLE
    assert refusal("servegen", "m,1,0,0.005,1,Gamma,120") is Reason.OUT_OF_RANGE


# ---------------------------------------------------------------- vllm-load-test

VLLM = "requests/vllm_load_test_requests.csv.gz"
VLLM_GPU = "gpu/vllm_load_test_gpu.csv.gz"
VLLM_ENGINE = "gpu/vllm_load_test_engine.csv.gz"


def test_vllm_requests_keep_every_row_prompt_token_and_time() -> None:
    table, found = rows(VLLM), requests("vllm-load-test", VLLM)
    assert len(found) == len(table) == len({e.event_id for e in found}) == 3_000
    assert sum(e.input_tokens or 0 for e in found) == sum(int(r["in_len"]) for r in table) == 1_285_680
    assert all(e.output_tokens is None for e in found)  # characters were published, no tokens
    assert sum(e.latency_ms or 0 for e in found) == pytest.approx(144_857_780.849283561)
    assert sum(e.ttft_ms or 0 for e in found) == pytest.approx(18_018_096.086723730)
    assert Counter(e.deployment for e in found) == {f"scale-{n}": 500 for n in (100, 300, 500, 700, 900, 1500)}
    assert_in_order(found)


def test_vllm_gpu_keeps_every_reading_in_bytes_and_ratios() -> None:
    table, found = rows(VLLM_GPU), gpus("vllm-load-test-gpu", VLLM_GPU)
    assert len(found) == len(table) == 2_456
    assert sum(round((e.util or 0) * 100) for e in found) == 92_083
    assert sum(e.memory_used_bytes or 0 for e in found) == 55_345_700 * MIB
    assert {e.memory_total_bytes for e in found} == {24_576 * MIB}
    assert sum(e.temperature_c or 0 for e in found) == 148_966
    assert {(e.node, e.gpu_index, e.util_source) for e in found} == {("vllm-load-test", 0, "gpu_util")}
    assert max(e.util or 0 for e in found) == 0.77
    assert_in_order(found)


def test_vllm_engine_keeps_queue_running_cache_and_throughput() -> None:
    table, found = rows(VLLM_ENGINE), gpus("vllm-load-test-engine", VLLM_ENGINE)
    assert len(found) == len(table) == 1_937
    assert sum(e.requests_waiting or 0 for e in found) == 30_930
    assert sum(e.requests_running or 0 for e in found) == 223_505
    assert max(e.requests_waiting or 0 for e in found) == 268
    assert max(e.requests_running or 0 for e in found) == 256
    assert sum(e.tokens_per_s or 0 for e in found) == pytest.approx(3_995_265.2597471312)
    assert max(e.kv_cache_usage or 0 for e in found) == pytest.approx(0.4736784080260185)
    assert all(e.util is None for e in found)
    assert_in_order(found)


def test_vllm_swapped_requests_wait() -> None:
    (event,) = get_format("vllm-load-test-engine").decode(b"100,14592700.5,0,1.5,3,2,7,50,0")
    assert isinstance(event, GpuEvent)
    assert (event.requests_running, event.requests_waiting, event.kv_cache_usage) == (3, 9, 0.5)


def test_vllm_files_share_one_clock_on_the_published_day() -> None:
    spans = {}
    for name, path in (
        ("vllm-load-test", VLLM),
        ("vllm-load-test-gpu", VLLM_GPU),
        ("vllm-load-test-engine", VLLM_ENGINE),
    ):
        times = [to_ns(e.at) for e in events(name, path)]
        spans[name] = (times[0], times[-1])
    day_ns = 1_729_987_200 * 10**9  # 2024-10-27T00:00:00Z
    assert all(day_ns <= first and last < day_ns + 3_600 * 10**9 for first, last in spans.values())
    for edge in (0, 1):
        assert max(s[edge] for s in spans.values()) - min(s[edge] for s in spans.values()) < 10**9
    assert one("vllm-load-test", "100,0,9,1024,5,5,1024,0.1,0.2,14592657.846643506,0.9,22533,0,40").at == (
        day_ns + 57_846_643_506
    )


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
