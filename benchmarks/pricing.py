"""Time to price a request: blocks of 10,000 through `PriceBook.price`, beside genai-prices' `calc_price` per event.

Run it with `python -m benchmarks.pricing` from the repository root.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from genai_prices import Usage, calc_price

from flows.pricing import PriceBook
from schemas.columns import DIMENSIONS, MISSING, Coded, RequestColumns

MODELS = [
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-5.6-sol"),
    ("openai", "o3"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-opus-4-6"),
    ("google", "gemini-2.5-pro"),
    ("google", "gemini-2.5-flash"),
    ("deepseek", "deepseek-chat"),
    ("mistral", "mistral-large-latest"),
    ("openai", "a-model-nobody-knows"),
]
START = datetime(2026, 11, 1, 9, tzinfo=UTC)


def block(n: int, seed: int) -> RequestColumns:
    """Ten seconds of traffic over eleven models, some prompts long enough for the dear tier, 3 % failures."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(MODELS), n).astype(np.int32)
    nothing = np.zeros(n, np.int32)
    dims = {name: Coded(nothing, [""]) for name in DIMENSIONS}
    dims["provider"] = Coded(which, [provider for provider, _ in MODELS])
    dims["model"] = Coded(which, [model for _, model in MODELS])
    dims["service_tier"] = Coded((rng.random(n) < 0.1).astype(np.int32), ["", "batch"])
    prompt = np.minimum(rng.lognormal(8, 1.6, n).astype(np.int64), 1_000_000)
    read = (prompt * rng.choice([0.0, 0.6], n)).astype(np.int64)
    output = rng.lognormal(5.5, 1.2, n).astype(np.int64)
    status = np.where(rng.random(n) < 0.03, 429, 200).astype(np.int64)
    missing, nan = np.full(n, MISSING, np.int64), np.full(n, np.nan)
    start_ns = int(START.timestamp()) * 1_000_000_000
    return RequestColumns(
        topic="bench", partition=0, offsets=np.arange(n), positions=missing, event_id=[""] * n,
        at_ns=start_ns + np.sort(rng.integers(0, 10_000_000_000, n)), lateness=nothing.astype(np.uint8), dims=dims,
        group_dims={}, prefix_hash=dims["team"], prefix_repeated=rng.random(n) < 0.3, status=status,
        failed=status >= 400, cause=nothing.astype(np.uint8), stream=nothing.astype(np.int8), attempt=missing,
        input_tokens=prompt, output_tokens=output, cache_read_tokens=read, cache_write_tokens=missing,
        reasoning_tokens=output // 3, prefix_tokens=prompt // 2, latency_ms=nan, ttft_ms=nan, retry_after_ms=nan,
        ratelimit_limit_requests=missing, ratelimit_remaining_requests=missing, ratelimit_limit_tokens=missing,
        ratelimit_remaining_tokens=missing, cost_given_pico=missing, outcome_value_pico=missing,
    )  # fmt: skip


def one_by_one(columns: RequestColumns, n: int) -> None:
    """The plain way: one `calc_price` per event."""
    providers, models = columns.dims["provider"].texts(), columns.dims["model"].texts()
    for i in range(n):
        usage = Usage(
            input_tokens=int(columns.input_tokens[i]),
            cache_read_tokens=int(columns.cache_read_tokens[i]),
            output_tokens=int(columns.output_tokens[i]),
        )
        try:
            calc_price(usage, models[i], provider_id=providers[i], genai_request_timestamp=START)
        except LookupError:
            continue


def best_ns(work: Callable[[], Any], events: int, rounds: int) -> float:
    """Nanoseconds per event of the fastest round."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - begun)
    return min(times) / events


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000, help="events per block")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    columns, book = block(options.events, seed=1), PriceBook.load(None)
    begun = time.perf_counter_ns()
    book.price(columns)
    first = time.perf_counter_ns() - begun
    sample = min(options.events, 2_000)
    ours = best_ns(lambda: book.price(columns), options.events, options.rounds)
    theirs = best_ns(lambda: one_by_one(columns, sample), sample, 3)
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    print(f"first block (tariffs resolved):   {first / 1e6:9.1f} ms")
    print(f"PriceBook.price, block of {options.events:6d}: {ours:9.0f} ns per event")
    print(f"calc_price, event by event:       {theirs:9.0f} ns per event  ({theirs / ours:.0f} times as long)")


if __name__ == "__main__":
    main()
