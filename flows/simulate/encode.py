"""Simulated requests as JSON: what a workload always says is encoded once, the rest is filled in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from genai_prices import Usage, calc_price

from flows.simulate.company import Workload
from flows.simulate.failures import FAILURES
from flows.simulate.models import PRICE_PROVIDERS
from flows.simulate.rows import Rows, mix, uniform
from schemas.cause import Cause

SECONDS = [f"{ms // 1000:02d}.{ms % 1000:03d}Z" for ms in range(60_000)]

MIN_CACHED = 1_024
"""Shortest prefix that OpenAI and Anthropic cache, tokens."""

FIELDS = (
    "at", "event_id", "user_id", "attempt", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "reasoning_tokens", "latency_ms", "ttft_ms", "ratelimit_remaining_requests", "ratelimit_remaining_tokens",
    "prefix_hash", "prefix_tokens", "finish_reason", "outcome", "cost_usd",
)  # fmt: skip
"""Fields that differ from request to request, in the order in which templates take them."""


class Encoder:
    """Writes rows of the given workloads.

    Parameters
    ----------
    workloads
        By number, as `Rows.leaf` has them.
    seed
        Varies event ids.
    start_ns
        Start of the simulation.
    """

    def __init__(self, workloads: Sequence[Workload], seed: int, start_ns: int) -> None:
        self.seed, self.start_ms = seed, start_ns // 1_000_000
        self.workloads = workloads
        entries = [w.catalogue_entry for w in workloads]
        self.constants = [_constants(w) for w in workloads]
        self.templates = [_template(w, c) for w, c in zip(workloads, self.constants, strict=True)]
        self.keys = [w.api_key_id.encode() for w in workloads]
        self.hashes = [[prefix_hash(w, k) for k in range(w.prefixes)] for w in workloads]
        self.writes_cache = np.array([e.cache == "read_write" and w.hit_rate > 0 for w, e in _both(workloads, entries)])
        self.has_cache = np.array([e.cache != "none" and w.hit_rate > 0 for w, e in _both(workloads, entries)])
        self.granule = np.array([16 if w.provider == "vllm" else 128 for w in workloads])
        self.min_cached = np.array([16 if w.provider == "vllm" else MIN_CACHED for w in workloads])
        self.limits = np.array([e.limits or (0, 0) for e in entries])
        self.epoch = [w.at_format for w in workloads]
        self.not_rfc3339 = np.array([w.at_format != "rfc3339" for w in workloads])
        self.outcome_share = np.array([w.outcome_share for w in workloads])
        self.outcomes = [_outcomes(w) for w in workloads]
        prices = [unit_prices(w) if w.reports_cost else (0.0, 0.0, 0.0) for w in workloads]
        self.prices = np.array(prices)
        self.reports_cost = np.array([w.reports_cost for w in workloads])
        self.fail_ms = np.array([0.0, *(f.latency_ms for f in FAILURES)])

    def encode(self, rows: Rows, minute: int) -> tuple[list[bytes], list[bytes]]:
        """JSON lines and message keys of rows that all end in the given minute."""
        if len(rows) == 0:
            return [], []
        leaf = rows.leaf
        prefix = np.where(rows.prefix_tokens >= 1, rows.prefix_tokens, 0).astype(np.int64)
        cached = np.where(self.has_cache[leaf] & (prefix >= self.min_cached[leaf]), prefix, 0)
        cached = cached // self.granule[leaf] * self.granule[leaf]
        hit = rows.u_hit < rows.hit
        read = np.where(hit, cached, 0)
        write = np.where(~hit & self.writes_cache[leaf], cached, 0)
        total = prefix + rows.fresh.astype(np.int64)
        output = rows.output.astype(np.int64)
        ttft = rows.ttft_ms * (1 + (total - read) / 20_000)
        latency = ttft + output * rows.ms_per_token
        ids = mix(rows.id, self.seed * 7 + 3)
        remaining = np.rint(self.limits[leaf] * (1 - rows.used)[:, None]).astype(np.int64)
        leaves = leaf.tolist()
        milliseconds = rows.at_ms - minute * 60_000
        stem = datetime.fromtimestamp((self.start_ms + minute * 60_000) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:")
        at: list[Any] = [stem + SECONDS[ms] for ms in milliseconds.tolist()]
        for i in np.flatnonzero(self.not_rfc3339[leaf]).tolist():
            ms = self.start_ms + int(rows.at_ms[i])
            at[i] = ms if self.epoch[leaves[i]] == "epoch_ms" else f"{ms // 1000}.{ms % 1000:03d}"
        hashes = [self.hashes[f][k] for f, k in zip(leaves, rows.prefix.tolist(), strict=True)]
        for i in np.flatnonzero(rows.salt).tolist():
            hashes[i] = f"{int(rows.salt[i]):04x}{hashes[i][4:]}"
        finish = ["length" if o >= 8_192 else "stop" for o in output.tolist()]
        columns: list[list[Any]] = [
            at, ids.tolist(), rows.user.tolist(), rows.attempt.tolist(), total.tolist(), output.tolist(),
            read.tolist(), write.tolist(), (output * rows.reasoning).astype(np.int64).tolist(),
            np.rint(latency).astype(np.int64).tolist(), np.rint(ttft).astype(np.int64).tolist(),
            remaining[:, 0].tolist(), remaining[:, 1].tolist(), hashes, prefix.tolist(), finish,
            self._outcome_texts(rows, leaves), self._costs(rows, total, read, output),
        ]  # fmt: skip
        templates = self.templates
        texts = [templates[f] % values for f, values in zip(leaves, zip(*columns, strict=True), strict=True)]
        lines = "\n".join(texts).encode().split(b"\n")
        for i in np.flatnonzero(rows.failure).tolist():
            lines[i] = self._failed(rows, i, {name: column[i] for name, column in zip(FIELDS, columns, strict=True)})
        for i in np.flatnonzero(rows.garbage).tolist():
            lines[i] = spoil(lines[i], int(rows.garbage[i]))
        return lines, [self.keys[f] for f in leaves]

    def _outcome_texts(self, rows: Rows, leaves: list[int]) -> list[str]:
        texts = [""] * len(rows)
        luck = uniform(rows.id, 950)
        share = self.outcome_share[rows.leaf]
        for i in np.flatnonzero(luck < share).tolist():
            choices = self.outcomes[leaves[i]]
            texts[i] = choices[int(luck[i] / share[i] * len(choices))]
        return texts

    def _costs(self, rows: Rows, total: Any, read: Any, output: Any) -> list[str]:
        costs = [""] * len(rows)
        chosen = np.flatnonzero(self.reports_cost[rows.leaf])
        if len(chosen):
            amounts = np.stack([total - read, read, output], axis=1)[chosen]
            usd = (amounts * self.prices[rows.leaf[chosen]]).sum(axis=1) * rows.price[chosen]
            for i, cost in zip(chosen.tolist(), usd.tolist(), strict=True):
                costs[i] = f"{cost:.9f}"
        return costs

    def _failed(self, rows: Rows, i: int, values: dict[str, Any]) -> bytes:
        number = int(rows.leaf[i])
        workload, failure = self.workloads[number], FAILURES[int(rows.failure[i]) - 1]
        event = dict(self.constants[number])
        event["event_id"] = f"{values['event_id']:016x}"
        at = values["at"]
        event["at"] = float(at) if workload.at_format == "epoch_s" else at
        event["user_id"] = f"{workload.product}-{values['user_id']:05d}"
        event["attempt"] = values["attempt"]
        event["status"] = failure.status
        event["error_type"], event["error_message"] = failure.error_type, failure.message
        if failure.error_code:
            event["error_code"] = failure.error_code
        if failure.retry_after_ms:
            event["retry_after_ms"] = failure.retry_after_ms
        if failure.cause is Cause.TIMEOUT:
            # The provider has worked, and bills, although nobody waits any more.
            event["input_tokens"], event["output_tokens"] = values["input_tokens"], values["output_tokens"] // 2
        spread = 0.7 + 0.6 * float(rows.u_hit[i])
        event["latency_ms"] = round(float(self.fail_ms[int(rows.failure[i])]) * spread)
        if "ratelimit_limit_requests" in event:
            used_up = failure.cause is Cause.VENDOR_QUOTA
            event["ratelimit_remaining_requests"] = 0 if used_up else values["ratelimit_remaining_requests"]
            event["ratelimit_remaining_tokens"] = values["ratelimit_remaining_tokens"]
        return orjson.dumps({k: v for k, v in event.items() if k not in workload.omits})


def spoil(line: bytes, way: int) -> bytes:
    """A message as broken producers send it: truncated, fields missing or of the wrong type, not even UTF-8."""
    if way == 1:
        return line[: len(line) // 2]
    if way == 2:
        return line.replace(b'"model":', b'"modell":', 1)
    if way == 3:
        return line[:-1] + b',"input_tokens":-5}'
    if way == 4:
        return line.replace(b'"status":', b'"status":"ok","status_was":', 1)
    if way == 5:
        return line.replace(b'"at":', b'"at":"yesterday","at_was":', 1)
    return line[:40] + b"\xff\xfe" + line[40:]


def prefix_hash(workload: Workload, number: int) -> str:
    """Hash of a workload's prompt prefix: another prompt version is another prefix."""
    text = f"{workload.team}/{workload.product}/{workload.prompt_name}/{workload.prompt_version}/{number}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def unit_prices(workload: Workload) -> tuple[float, float, float]:
    """US dollars per uncached input, cached input and output token, from genai-prices."""
    provider = PRICE_PROVIDERS[workload.provider]

    def of(**usage: int) -> float:
        return float(calc_price(Usage(**usage), workload.model, provider_id=provider).total_price) / 1000

    return of(input_tokens=1000), of(input_tokens=1000, cache_read_tokens=1000), of(output_tokens=1000)


def _both(workloads: Sequence[Workload], entries: list[Any]) -> list[tuple[Workload, Any]]:
    return list(zip(workloads, entries, strict=True))


def _constants(w: Workload) -> dict[str, Any]:
    entry = w.catalogue_entry
    found: dict[str, Any] = {
        "team": w.team, "product": w.product, "environment": w.environment, "api_key_id": w.api_key_id,
        "provider": w.provider, "model": w.model, "region": entry.region, "deployment": entry.deployment,
        "operation": w.operation, "stream": w.stream, "service_tier": w.tier, "prompt_name": w.prompt_name,
        "prompt_version": w.prompt_version,
    }  # fmt: skip
    if entry.limits is not None:
        found["ratelimit_limit_requests"], found["ratelimit_limit_tokens"] = entry.limits
    if w.provider == "vllm":
        found["cost_usd"] = "0"  # paid by the GPU hour
    return {k: v for k, v in found.items() if v != "" and k not in w.omits}


def _template(w: Workload, constants: dict[str, Any]) -> str:
    """Template of a successful request, to be filled with `FIELDS`; a field that is not reported takes no room."""
    entry = w.catalogue_entry
    quoted = {"at"} if w.at_format == "rfc3339" else set()
    absent = set(w.omits)
    if not w.stream:
        absent.add("ttft_ms")
    if entry.cache == "none":
        absent |= {"cache_read_tokens", "cache_write_tokens"}
    if entry.cache == "read":
        absent.add("cache_write_tokens")
    if not entry.reasoning:
        absent.add("reasoning_tokens")
    if entry.limits is None:
        absent |= {"ratelimit_remaining_requests", "ratelimit_remaining_tokens"}
    if w.prefix_tokens == 0:
        absent |= {"prefix_hash", "prefix_tokens"}
    if w.operation == "embeddings":
        absent.add("finish_reason")
    if not w.reports_cost:
        absent.add("cost_usd")
    parts = [orjson.dumps({**constants, "status": 200}).decode()[:-1].replace("%", "%%")]
    for name in FIELDS:
        if name in absent:
            parts.append("%.0s")
        elif name == "event_id":
            parts.append(',"event_id":"%016x"')
        elif name == "user_id":
            parts.append(f',"user_id":"{w.product}-%05d"')
        elif name == "outcome":
            parts.append("%s")
        elif name in quoted or name in ("prefix_hash", "finish_reason", "cost_usd"):
            parts.append(f',"{name}":"%s"')
        else:
            parts.append(f',"{name}":%s')
    return "".join(parts) + "}"


def _outcomes(w: Workload) -> list[str]:
    """What a request can bring, already in JSON: values spread around the typical one."""
    spread = (0.3, 0.6, 0.8, 1.0, 1.0, 1.2, 1.6, 2.5)
    return [f',"outcome":"{w.outcome}","outcome_value_usd":"{w.outcome_usd * s:.4f}"' for s in spread]
