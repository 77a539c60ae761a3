from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import Reason
from schemas.formats import get_format
from schemas.gpu_event import GpuEvent
from schemas.request_event import RequestEvent
from schemas.timestamps import to_ns
from tests.traces import assert_in_order, events, gpus, one, opened, refusal, requests, rows

MIB = 1024 * 1024


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


def test_servegen_message_never_stands_for_more_events_than_memory_holds() -> None:
    assert refusal("servegen", "m,1,0,200,1,Gamma") is Reason.OUT_OF_RANGE
    assert refusal("servegen", "m,1,0,10001,1,Gamma,0") is Reason.OUT_OF_RANGE
    assert sum(1 for _ in get_format("servegen").decode(b"m,1,0,10000,1,Gamma,119")) == 50_000


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
