"""Published traces through `tidegauge replay` into ClickHouse: every row and token arrives, what is missing stays NULL.

What a trace holds is read from its file with csv and json, without our code, and written out as numbers besides.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sinks.clickhouse.client import connect
from tests.commands.command_line import json_lines, replayed
from tests.traces import DATA, opened, rows

Request = tuple[float, int, int, bool]
"""Seconds since the epoch, input tokens, output tokens, failed."""

START_2025 = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
DAY_OF_LLMPERF = datetime(2023, 12, 19, tzinfo=UTC).timestamp()
DAY_OF_LOAD_TEST = datetime(2024, 10, 27, tzinfo=UTC).timestamp()
LOAD_TEST_CLOCK = 14_592_600
"""What the load test's monotonic clock reads at the start of `DAY_OF_LOAD_TEST` (docs/formats.md)."""
SERVEGEN_S = 3_600
"""The ServeGen trace is cut to its first hour: the whole day is 883,898 requests, four minutes of work on two cores."""


def azure(kind: str) -> Iterator[Request]:
    for row in rows(f"requests/azure_llm_2023_{kind}.csv.gz"):
        at = datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC).timestamp()
        yield at, int(row["ContextTokens"]), int(row["GeneratedTokens"]), False


def mooncake(kind: str) -> Iterator[Request]:
    with opened(f"requests/mooncake_{kind}.jsonl.gz") as file:
        for row in map(json.loads, file):
            yield START_2025 + row["timestamp"] / 1e3, row["input_length"], row["output_length"], False


def llmperf(_: str) -> Iterator[Request]:
    for row in rows("requests/llmperf_providers_2023.csv.gz"):
        at = DAY_OF_LLMPERF + int(row["request_no"])
        yield at, int(row["input_tokens"]), int(row["output_tokens"]), row["error_code"] != ""


def load_test(_: str) -> Iterator[Request]:
    for row in rows("requests/vllm_load_test_requests.csv.gz"):
        yield DAY_OF_LOAD_TEST + float(row["record_time"]) - LOAD_TEST_CLOCK, int(row["in_len"]), 0, False


def servegen(model: str) -> Iterator[Request]:
    for row in rows("requests/servegen_client_windows.csv.gz"):
        start = int(row["window_start_s"])
        if row["model"] == model and start < SERVEGEN_S:
            n = round(float(row["rate_rps"]) * 600)
            yield from ((START_2025 + start + (j + 0.5) * 600 / n, 0, 0, False) for j in range(n))


@dataclass(frozen=True)
class Trace:
    """One trace, what it holds, and what it does not."""

    read: Callable[[str], Iterator[Request]]
    kind: str
    format: str
    file: str
    requests: int
    input_tokens: int | None
    output_tokens: int | None
    failed: int = 0
    absent: tuple[str, ...] = ()
    """Columns that are NULL (or empty text) in every row, because the trace does not have them."""


NEVER = ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_usd", "attempt", "team", "prompt_name")
"""No trace reports these, and no trace names a model that has a price."""
TIMES = ("latency_ms", "ttft_ms")
AZURE = (*NEVER, *TIMES, "stream", "user_id", "prefix_hash")
TRACES = {
    "azure-code": Trace(
        azure, "code", "azure-llm", "azure_llm_2023_code.csv.gz", 6_118, 12_460_506, 166_437, absent=AZURE
    ),
    "azure-conv": Trace(
        azure, "conv", "azure-llm", "azure_llm_2023_conv.csv.gz", 11_997, 15_050_169, 2_457_675, absent=AZURE
    ),
    "mooncake-conversation": Trace(
        mooncake, "conversation", "mooncake", "mooncake_conversation.jsonl.gz", 6_758, 85_097_411, 2_344_538,
        absent=(*NEVER, *TIMES),
    ),
    "mooncake-synthetic": Trace(
        mooncake, "synthetic", "mooncake", "mooncake_synthetic.jsonl.gz", 2_254, 28_318_557, 427_740,
        absent=(*NEVER, *TIMES),
    ),
    "llmperf": Trace(
        llmperf, "", "llmperf", "llmperf_providers_2023.csv.gz", 1_495, 822_250, 201_904, failed=182, absent=NEVER
    ),
    "servegen-deepseek-r1": Trace(
        servegen, "deepseek-r1", "servegen", "servegen_client_windows.csv.gz", 22_310, None, None,
        absent=(*NEVER, *TIMES),
    ),
    "servegen-mm-image": Trace(
        servegen, "mm-image", "servegen", "servegen_client_windows.csv.gz", 12_345, None, None,
        absent=(*NEVER, *TIMES),
    ),
}  # fmt: skip
LOAD_TEST = Trace(
    load_test, "", "vllm-load-test", "vllm_load_test_requests.csv.gz", 3_000, 1_285_680, None, absent=NEVER
)


@pytest.mark.parametrize("name", TRACES)
def test_every_request_and_token_of_a_trace_arrives(name: str, tmp_path: Path) -> None:
    trace = TRACES[name]
    file = tmp_path / "cut.csv.gz"
    if trace.read is servegen:
        with opened("requests/servegen_client_windows.csv.gz") as whole, gzip.open(file, "wb", 1) as cut:
            cut.writelines(line for line in whole if line.startswith(b"model,") or servegen_hour(line, trace.kind))
    else:
        file = DATA / "requests" / trace.file
        if not file.exists():
            pytest.skip("shared/data is not here")
    url = f"chdb://{tmp_path / 'db'}"
    summary = replayed(f"{trace.format}={file}", "--clickhouse", url)
    assert summary["dead_letters"] == {}
    assert summary["too_late"] == 0
    check(url, trace)


def servegen_hour(line: bytes, model: str) -> bool:
    values = line.decode().split(",")
    return values[0] == model and int(values[2]) < SERVEGEN_S


def check(url: str, trace: Trace) -> None:
    """Tables against the file: the sums, every 10 s window, and what is missing."""
    expected = list(trace.read(trace.kind))
    failed = sum(f for _, _, _, f in expected)
    sums = (len(expected), sum(i for _, i, _, _ in expected), sum(o for _, _, o, _ in expected), failed)
    assert sums == (trace.requests, trace.input_tokens or 0, trace.output_tokens or 0, trace.failed)
    windows: dict[int, Counter[str]] = {}
    for at, i, o, f in expected:
        windows.setdefault(int(at // 10 * 10), Counter()).update(n=1, i=i, o=o, f=int(f))

    client = connect(url)
    try:
        (row,) = client.query(
            "SELECT count(), sum(input_tokens), sum(output_tokens), countIf(failed), uniqExact(event_id)"
            " FROM requests_final"
        ).result_rows
        # a sum over nothing but NULL is NULL: the trace does not say, which is not 0
        assert row == (trace.requests, trace.input_tokens, trace.output_tokens, trace.failed, trace.requests)
        total = client.query(
            "SELECT toUnixTimestamp(window_start), requests, input_tokens, output_tokens, errors"
            " FROM request_windows_final WHERE grouping = '' ORDER BY window_start"
        ).result_rows
        assert total == [(start, c["n"], c["i"], c["o"], c["f"]) for start, c in sorted(windows.items())]
        assert client.query("SELECT DISTINCT cost_usd FROM request_windows_final").result_rows == [(None,)]
        for column in (*trace.absent, *(c for c in ("input_tokens", "output_tokens") if getattr(trace, c) is None)):
            present = client.query(f"SELECT countIf(ifNull(toString({column}), '') != '') FROM requests_final")
            assert present.result_rows == [(0,)], column
    finally:
        client.close()


@pytest.mark.server
def test_a_trace_arrives_in_a_server_as_in_the_embedded_engine(clickhouse_server: str) -> None:
    if not DATA.exists():
        pytest.skip("shared/data is not here")
    database = f"test_{uuid.uuid4().hex[:12]}"
    url = urlsplit(clickhouse_server)._replace(path=f"/{database}").geturl()
    try:
        for _ in range(2):  # twice is once: identities are the same
            replayed(f"llmperf={DATA / 'requests' / TRACES['llmperf'].file}", "--clickhouse", url)
        check(url, TRACES["llmperf"])
    finally:
        client = connect(url)
        client.command(f"DROP DATABASE IF EXISTS {database}", use_database=False)
        client.close()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """The vLLM load test, all three logs: the database, and the incidents."""
    if not DATA.exists():
        pytest.skip("shared/data is not here")
    folder = tmp_path_factory.mktemp("load-test")
    replayed(
        f"vllm-load-test={DATA}/requests/vllm_load_test_requests.csv.gz",
        f"vllm-load-test-gpu={DATA}/gpu/vllm_load_test_gpu.csv.gz",
        f"vllm-load-test-engine={DATA}/gpu/vllm_load_test_engine.csv.gz",
        "--clickhouse", f"chdb://{folder / 'db'}", "--incidents", folder / "incidents.jsonl",
    )  # fmt: skip
    return f"chdb://{folder / 'db'}", json_lines(folder / "incidents.jsonl")


def test_the_load_test_arrives_with_its_gpu_and_engine_readings(loaded: tuple[str, list[dict[str, Any]]]) -> None:
    url, _ = loaded
    check(url, LOAD_TEST)
    gpu, engine = rows("gpu/vllm_load_test_gpu.csv.gz"), rows("gpu/vllm_load_test_engine.csv.gz")
    expected = (
        len(gpu), len(engine),
        sum(float(r["GPU_used_mem"]) for r in gpu) * 2**20,
        sum(float(r["GPU_utilization"]) for r in gpu),
        sum(float(r["num_running"]) for r in engine),
        sum(float(r["num_pending"]) + float(r["num_swapped"]) for r in engine),
    )  # fmt: skip
    assert expected[:2] == (2_456, 1_937)
    client = connect(url)
    try:
        (found,) = client.query(
            "SELECT countIf(util IS NOT NULL), countIf(requests_running IS NOT NULL), sum(memory_used_bytes),"
            " sum(util) * 100, sum(requests_running), sum(requests_waiting) FROM gpu_samples_final"
        ).result_rows
        assert found == pytest.approx(expected, rel=1e-9)
        (absent,) = client.query(
            "SELECT count(), count(power_w), count(xid), count(preemptions), count(usd_per_hour), max(gpu_model),"
            " countIf(util IS NOT NULL AND requests_running IS NOT NULL) FROM gpu_samples_final"
        ).result_rows
        assert absent == (2_456 + 1_937, 0, 0, 0, 0, "", 0)  # each log says what it says, and no more
    finally:
        client.close()


def test_the_load_test_is_saturated_while_its_gpu_looks_harmless(loaded: tuple[str, list[dict[str, Any]]]) -> None:
    _, incidents = loaded
    engine, gpu = rows("gpu/vllm_load_test_engine.csv.gz"), rows("gpu/vllm_load_test_gpu.csv.gz")
    offset = DAY_OF_LOAD_TEST - LOAD_TEST_CLOCK
    scales: dict[int, tuple[float, float]] = {}
    for row in engine:
        at, scale = float(row["timestamp"]) + offset, int(row["load_scale"])
        scales[scale] = (scales.get(scale, (at, at))[0], at)
    assert list(scales) == [100, 300, 500, 700, 900, 1500]
    assert {i["kind"] for i in incidents} == {"engine_saturation", "unpriced_model"}  # in particular no gpu_saturation

    opened_at = [
        datetime.fromisoformat(i["detected_at"]).timestamp()
        for i in incidents
        if i["kind"] == "engine_saturation" and i["state"] == "open"
    ]
    found = {
        scale: sum(start <= at <= end + 20 for at in opened_at)  # a row of 10 s may end after the last reading
        for scale, (start, end) in scales.items()
    }
    assert found == {100: 0, 300: 1, 500: 1, 700: 1, 900: 1, 1500: 1}
    assert len(opened_at) == 5
    for incident in incidents:
        if incident["kind"] == "engine_saturation":
            assert "waiting" in incident["summary"]
            assert "the most it runs" in incident["summary"]  # the running limit of 256 was met
            assert incident["dims"]["node"] == "vllm-load-test"
            assert incident["severity"] in ("warning", "error", "critical")

    # Meanwhile the GPU: of all readings while requests wait, half are below 36 %, and none reaches 76 %. The healthy
    # scale 100 uses more GPU on average than the saturated scale 1500.
    util = {
        scale: [float(r["GPU_utilization"]) for r in gpu if int(r["load_scale"]) == scale and waiting(engine, r)]
        for scale in scales
        if scale >= 300
    }
    assert all(max(u) < 76 and sorted(u)[len(u) // 2] < 36 for u in util.values())
    assert mean_util(gpu, 100) == pytest.approx(37.9, abs=0.1)
    assert mean_util(gpu, 1500) == pytest.approx(32.9, abs=0.1)


def waiting(engine: list[dict[str, str]], reading: dict[str, str]) -> bool:
    queue = [
        float(r["timestamp"])
        for r in engine
        if r["load_scale"] == reading["load_scale"] and float(r["num_pending"]) > 0
    ]
    return min(queue) <= float(reading["record_time"]) <= max(queue)


def mean_util(gpu: list[dict[str, str]], scale: int) -> float:
    values = [float(r["GPU_utilization"]) for r in gpu if int(r["load_scale"]) == scale]
    return sum(values) / len(values)
