"""Decode speed: raw messages to columns, beside plain `orjson.loads` on the same bytes in the same run.

Rounds alternate and the ratio is taken within each round, so that the machine's changes of speed cancel.

    python -m benchmarks.decode --events 100000 --rounds 9
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import orjson

from flows.partition import RequestPartition
from schemas.block import Block
from schemas.formats import get_format

S = 1_000_000_000
BLOCK = 10_000


def messages(n: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    out = []
    for i in range(n):
        failed = rng.random() < 0.03
        ms = 1_767_268_800_000 + i * 300_000 // n - (rng.randrange(3_000) if rng.random() < 0.05 else 0)
        event = {
            "event_id": f"req-{i:012d}", "at": ms, "team": f"team-{rng.randrange(20)}",
            "product": f"product-{rng.randrange(8)}", "user_id": f"user-{rng.randrange(5_000)}",
            "api_key_id": f"key-{rng.randrange(60)}", "environment": "production",
            "provider": rng.choice(["openai", "anthropic"]), "model": f"model-{rng.randrange(10)}",
            "region": "eu-west-1", "operation": "chat", "stream": True, "input_tokens": rng.randrange(100, 10_000),
            "output_tokens": rng.randrange(2_000), "cache_read_tokens": rng.randrange(100),
            "latency_ms": round(rng.expovariate(1 / 900), 3), "ttft_ms": round(rng.expovariate(1 / 300), 3),
            "status": 429 if failed else 200, "finish_reason": "stop", "attempt": 1, "prompt_name": "answer",
            "prompt_version": "7",
        }  # fmt: skip
        if failed:
            event |= {"error_type": "rate_limit_exceeded", "error_message": f"Rate limit reached, request {i}"}
        out.append(orjson.dumps(event))
    return out


def seconds_of_columns(blocks: list[Block]) -> float:
    partition = RequestPartition(
        "ai.requests", 0, get_format("request"), window_ns=10 * S, disorder_ns=5 * S, allowed_lateness_ns=60 * S,
        max_clock_ahead_ns=300 * S, group_dimensions=["team", "product", "provider", "model", "prompt_version"],
        max_values_per_dimension=1_000, cache_ttl_ns=300 * S,
    )  # fmt: skip
    start = time.perf_counter()
    for block in blocks:
        partition.feed(block)
    return time.perf_counter() - start


def seconds_of_orjson(blocks: list[Block]) -> float:
    loads = orjson.loads
    start = time.perf_counter()
    for block in blocks:
        for payload in block.payloads:
            loads(payload or b"null")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    raw = messages(arguments.events, arguments.seed)
    blocks = [
        Block("ai.requests", 0, range(at, at + len(piece)), piece, [-1] * len(piece))
        for at in range(0, len(raw), BLOCK)
        for piece in [raw[at : at + BLOCK]]
    ]
    ours, plain = [], []
    for _ in range(arguments.rounds):
        plain.append(seconds_of_orjson(blocks))
        ours.append(seconds_of_columns(blocks))
    ratio = statistics.median(p / o for p, o in zip(plain, ours, strict=True))
    rate = arguments.events / statistics.median(ours)
    base = arguments.events / statistics.median(plain)
    size = sum(map(len, raw)) / len(raw)
    print(f"{arguments.events} events of {size:.0f} bytes, {arguments.rounds} rounds")
    print(f"bytes to columns {rate:,.0f} events/s; orjson.loads {base:,.0f} events/s; median ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
