"""What GPUs cost per hour where the sample does not say."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from flows.pricing import PriceBook
from schemas.columns import GPU_DIMENSIONS, MISSING, Coded, GpuColumns
from schemas.money import to_pico
from tests.flows.pricing_events import SPRING, at_ns

BOOK = PriceBook.load(None)


def samples(models: list[str], migs: list[str] | None = None, at: list[datetime] | None = None) -> GpuColumns:
    n = len(models)
    texts = {"gpu_model": models, "mig_id": migs or [""] * n}
    dims = {}
    for name in GPU_DIMENSIONS:
        column = texts.get(name, [""] * n)
        values = sorted(set(column))
        dims[name] = Coded(np.array([values.index(t) for t in column], np.int32), values)
    nan, missing = np.full(n, np.nan), np.full(n, MISSING, np.int64)
    return GpuColumns(
        topic="ai.gpus", partition=0, offsets=np.arange(n), positions=np.zeros(n, np.int64),
        at_ns=np.array([at_ns(t) for t in at or [SPRING] * n], np.int64), lateness=np.zeros(n, np.uint8), dims=dims,
        util=nan, memory_used_bytes=missing, memory_total_bytes=missing, power_w=nan, power_limit_w=nan,
        temperature_c=nan, xid=missing, ecc_uncorrected=missing, throttled=np.full(n, MISSING, np.int8),
        requests_running=nan, requests_waiting=nan, kv_cache_usage=nan, preemptions=missing, tokens_per_s=nan,
        usd_per_hour_pico=missing.copy(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "usd_per_hour"),
    [
        ("NVIDIA H100 80GB HBM3", "3.99"),
        ("NVIDIA-H100-80GB-HBM3", "3.99"),
        ("nvidia h100 pcie", "2.89"),
        ("NVIDIA H100 NVL", "3.19"),
        ("NVIDIA H200", "4.59"),
        ("NVIDIA B200", "6.79"),
        ("NVIDIA GH200 480GB", "2.29"),
        ("NVIDIA A100-SXM4-80GB", "1.79"),
        ("NVIDIA L40S", "1.861"),
        ("NVIDIA L4", "0.8048"),
        ("Tesla T4", "0.526"),
        ("NVIDIA A10", "1.29"),
        ("NVIDIA A10G", "1.006"),
    ],
)
def test_models_are_recognised_as_the_driver_names_them(model: str, usd_per_hour: str) -> None:
    assert BOOK.price_gpus(samples([model])).usd_per_hour_pico.tolist() == [to_pico(usd_per_hour)]


@pytest.mark.parametrize("model", ["", "Example Accelerator 9"])
def test_unknown_models_have_no_price(model: str) -> None:
    assert BOOK.price_gpus(samples([model])).usd_per_hour_pico.tolist() == [MISSING]


def test_a_given_price_stays_and_the_input_is_not_changed() -> None:
    columns = samples(["NVIDIA L4", "NVIDIA L4"])
    columns.usd_per_hour_pico[0] = 5
    priced = BOOK.price_gpus(columns)
    assert priced.usd_per_hour_pico.tolist() == [5, to_pico("0.8048")]
    assert columns.usd_per_hour_pico.tolist() == [5, MISSING]


def test_a_mig_instance_costs_its_share_of_compute_slices() -> None:
    a100 = "NVIDIA A100-SXM4-80GB"
    migs = ["1g.10gb", "3g.40gb", "7g.80gb", "MIG-6f1b", ""]
    priced = BOOK.price_gpus(samples([a100, a100, a100, a100, a100 + " MIG 2g.20gb"], migs))
    whole = Decimal("1.79")
    expected = [to_pico(whole / 7), to_pico(whole * 3 / 7), to_pico(whole), MISSING, to_pico(whole * 2 / 7)]
    assert priced.usd_per_hour_pico.tolist() == expected


def test_ones_own_price_wins_while_it_holds(tmp_path: Path) -> None:
    overlay = tmp_path / "prices.yaml"
    overlay.write_text(
        "gpus:\n  - {gpu_model: '*H100*', usd_per_hour: 2.10, valid_from: 2026-04-01, valid_to: 2026-05-01,\n"
        "     source: lease 9, checked: 2026-03-30}\n"
    )
    days = [datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)]
    days += [datetime(2026, 4, 30, 23, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)]
    priced = PriceBook.load(str(overlay)).price_gpus(samples(["NVIDIA H100 80GB HBM3"] * 4, at=days))
    assert priced.usd_per_hour_pico.tolist() == [to_pico(usd) for usd in ("3.99", "2.10", "2.10", "3.99")]


def test_an_empty_block_stays_empty() -> None:
    assert len(BOOK.price_gpus(samples([]))) == 0
