"""GPU samples, minute by minute: utilisation, memory, power, faults, and the engines' queues."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from flows.simulate.encode import SECONDS
from flows.simulate.fleet import Gpu
from flows.simulate.incidents import GPU_KINDS, Planned
from flows.simulate.rows import Bools, Floats, Ints

PERIOD_MS = 10_000
SAMPLES = 60_000 // PERIOD_MS

GPU_DIMS: tuple[str, ...] = ("cluster", "node", "gpu_uuid", "gpu_model", "pool", "team", "model", "mig_id")
"""Dimensions by which an event can choose GPUs."""

TOKENS_PER_S = {"llama-3.3-70b-instruct": 2_600.0, "qwen3-8b": 3_800.0}
"""Throughput of a full engine; a recorded load test of a small model levels off at 3,900."""

XID_DOUBLE_BIT, XID_OFF_THE_BUS = 48, 79


def dim(gpu: Gpu, name: str) -> str:
    """Value of one of `GPU_DIMS`."""
    return {"gpu_uuid": gpu.uuid, "gpu_model": gpu.card.name}.get(name) or str(getattr(gpu, name, ""))


def chosen(gpus: Sequence[Gpu], planned: Planned) -> Bools:
    """GPUs that an event happens to, shape (n,)."""
    if planned.kind not in GPU_KINDS:
        return np.zeros(len(gpus), dtype=bool)
    dims = {k: v for k, v in planned.dims.items() if k != "provider"}
    return np.array([all(dim(g, k) == v for k, v in dims.items()) for g in gpus], dtype=bool)


class Samples:
    """All GPU samples of a fleet.

    Parameters
    ----------
    gpus, seed, start_ns
        The fleet, which random numbers, and the start of the simulation.
    planned
        What happens.
    """

    def __init__(self, gpus: Sequence[Gpu], seed: int, start_ns: int, planned: Sequence[Planned]) -> None:
        self.gpus, self.seed, self.start_ms = gpus, seed, start_ns // 1_000_000
        self.events = [
            (p, chosen(gpus, p), p.start_ns // 1_000_000 - self.start_ms, p.end_ns // 1_000_000 - self.start_ms)
            for p in planned
            if p.kind in GPU_KINDS
        ]
        n = len(gpus)
        self.nodes = np.array([g.node for g in gpus])
        self.roles = np.array([g.role for g in gpus])
        self.power_limit = np.array([g.card.power_limit_w for g in gpus])
        self.idle_w = np.array([g.card.idle_w for g in gpus])
        self.running_limit = np.array([float(g.running_limit) for g in gpus])
        self.peak_tokens = np.array([TOKENS_PER_S.get(g.model, 0.0) for g in gpus])
        rng = np.random.default_rng(np.random.SeedSequence([seed, 6]))
        self.phase_ms = {node: int(rng.integers(0, PERIOD_MS)) for node in dict.fromkeys(g.node for g in gpus)}
        self.phases = np.array([self.phase_ms[g.node] + g.index * 3 for g in gpus]) % PERIOD_MS
        training = 0.72 + 0.1 * rng.random(n)  # Acme's traces: three quarters of the samples lie below 73 %
        base_of = {"engine": 0.0, "training": 1.0, "batch": 0.75, "held_idle": 0.0, "free": 0.0}
        self.base_util = training * np.array([base_of[g.role] for g in gpus])
        filled = {"engine": 0.9, "training": 0.76, "batch": 0.5, "held_idle": 0.58, "free": 0.004}
        share = np.array([filled[g.role] for g in gpus])
        self.memory = (share * np.array([float(g.card.memory_bytes) for g in gpus])).astype(np.int64)
        self.noise, self.temperature = np.zeros(n), np.full(n, 34.0)
        self.preemptions, self.ecc = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.faulted = np.zeros(len(self.events), dtype=bool)
        self.templates = [_template(g) for g in gpus]
        self.keys = [g.uuid.encode() for g in gpus]

    def minute(self, i: int, load: dict[str, float]) -> tuple[list[bytes], Ints, list[bytes]]:
        """Samples of minute i in order of time: JSON lines, event times in ns, and message keys.

        Parameters
        ----------
        i
            Minutes must be asked for one after the other.
        load
            By model: how busy its engines are, 0-1.
        """
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, 7, i])))
        stem = datetime.fromtimestamp(self.start_ms / 1000 + i * 60, UTC).strftime("%Y-%m-%dT%H:%M:")
        lines: list[bytes] = []
        at: list[npt.NDArray[np.int64]] = []
        keys: list[bytes] = []
        loads = np.array([load.get(g.model, 0.0) for g in self.gpus])
        for k in range(SAMPLES):
            in_minute = k * PERIOD_MS + self.phases
            values = self._sample(i * 60_000 + in_minute, loads, rng)
            for g in np.argsort(in_minute, kind="stable").tolist():
                lines.append((self.templates[g] % (stem + SECONDS[int(in_minute[g])], *values[g])).encode())
                keys.append(self.keys[g])
            at.append(np.sort(in_minute, kind="stable") + self.start_ms + i * 60_000)
        return lines, np.concatenate(at) * 1_000_000, keys

    def _sample(self, at_ms: Ints, load: Floats, rng: np.random.Generator) -> list[tuple[Any, ...]]:
        n = len(self.gpus)
        draws, luck = rng.normal(size=(3, n)), rng.random((2, n))
        self.noise = 0.9 * self.noise + 0.436 * draws[0]
        serving, working = self.roles == "engine", (self.roles == "training") | (self.roles == "batch")
        util = np.where(serving, 0.12 + 0.75 * load + 0.05 * self.noise, self.base_util + 0.05 * self.noise)
        # A training job writes checkpoints every 20 minutes, and its GPUs wait for 30 seconds.
        util = np.where(working & (at_ms % 1_200_000 < 30_000), 0.08, util)
        util = np.where((self.roles == "free") | (self.roles == "held_idle"), 0.002 + 0.004 * luck[0], util)
        running = np.maximum(0, np.rint(self.running_limit * load * (1 + 0.08 * self.noise)))
        waiting = np.where((luck[1] < 0.04) & serving, np.rint(4 * luck[0]), 0.0)
        kv = np.clip(0.05 + 0.62 * load + 0.03 * self.noise, 0, 0.85) * serving
        tokens = self.peak_tokens * load * (1 + 0.05 * draws[1])
        throttled = np.zeros(n, dtype=bool)
        xid, new_preemptions = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        memory = self.memory.copy()
        for number, (planned, scope, start, end) in enumerate(self.events):
            hit = scope & (at_ms >= start) & (at_ms < end)
            if not hit.any():
                continue
            near = np.clip((at_ms - start) / max(1.0, min(300_000.0, (end - start) / 4)), 0, 1)
            if planned.kind == "gpu_saturation":
                high = np.clip(planned.magnitude, 0, 1) - 0.012 * luck[0]
                util = np.where(hit, util + (high - util) * near, util)
                throttled |= hit & (near >= 1) & (luck[1] < 0.5)
            elif planned.kind == "gpu_idle":
                util = np.where(hit, 0.002 + 0.004 * luck[0], util)
                running, tokens, waiting = (np.where(hit, 0.0, v) for v in (running, tokens, waiting))
                kv = np.where(hit, 0.0, kv)
            elif planned.kind == "engine_saturation":
                queue = planned.magnitude * 30 * near * (1 + 0.1 * self.noise)
                waiting = np.where(hit, np.maximum(np.rint(queue), 0), waiting)
                running = np.where(hit, np.rint(running + (self.running_limit - running) * near), running)
                kv = np.where(hit, np.clip(kv + (0.96 - kv) * near + 0.01 * draws[2], 0, 1), kv)
                tokens = np.where(hit, tokens + (self.peak_tokens * 0.98 - tokens) * near, tokens)
                new_preemptions = np.where(hit & (near > 0.6), rng.poisson(6, n), new_preemptions)
            else:
                stopped = np.isin(self.nodes, self.nodes[scope]) & working & (at_ms >= start) & (at_ms < end)
                util = np.where(hit | stopped, 0.0, util)  # the job on the node dies with its GPU
                tokens, running, kv = (np.where(hit, 0.0, v) for v in (tokens, running, kv))
                xid = np.where(hit, int(planned.magnitude), xid)
                if int(planned.magnitude) == XID_DOUBLE_BIT and not self.faulted[number]:
                    self.ecc += hit * 2
                if int(planned.magnitude) == XID_OFF_THE_BUS:
                    memory = np.where(hit, 0, memory)
                self.faulted[number] = True
        util = np.clip(util, 0, 1)
        self.preemptions += np.where(serving, new_preemptions, 0)
        power = self.idle_w + (self.power_limit - self.idle_w) * np.minimum(0.97 * util**0.8, 1) * (1 + 0.02 * draws[1])
        power = np.clip(power, 0, self.power_limit)
        self.temperature += 0.15 * (27 + 42 * power / self.power_limit + 3 * util + draws[2] * 0.5 - self.temperature)
        return list(
            zip(
                np.round(util, 4).tolist(), memory.tolist(), np.round(power, 1).tolist(),
                np.round(self.temperature, 0).tolist(), xid.tolist(), self.ecc.tolist(),
                ["true" if t else "false" for t in throttled.tolist()], running.astype(int).tolist(),
                waiting.astype(int).tolist(), np.round(np.clip(kv, 0, 1), 4).tolist(), self.preemptions.tolist(),
                np.round(np.maximum(tokens, 0), 1).tolist(),
                strict=True,
            )
        )  # fmt: skip


def _template(g: Gpu) -> str:
    constants: dict[str, Any] = {
        "cluster": g.cluster, "node": g.node, "gpu_uuid": g.uuid, "gpu_index": g.index, "mig_id": g.mig_id,
        "gpu_model": g.card.name, "pool": g.pool, "namespace": g.namespace, "pod": g.pod, "team": g.team,
        "model": g.model, "util_source": g.util_source, "memory_total_bytes": g.card.memory_bytes,
        "power_limit_w": g.card.power_limit_w, "usd_per_hour": g.card.usd_per_hour,
    }  # fmt: skip
    head = orjson.dumps({k: v for k, v in constants.items() if v != ""}).decode()[1:].replace("%", "%%")
    fields = ["util", "memory_used_bytes", "power_w", "temperature_c", "xid", "ecc_uncorrected", "throttled"]
    engine = ["requests_running", "requests_waiting", "kv_cache_usage", "preemptions", "tokens_per_s"]
    parts = [f',"{name}":%s' for name in fields]
    parts += [f',"{name}":%s' if g.leads_engine else "%.0s" for name in engine]
    return '{"at":"%s",' + head[:-1] + "".join(parts) + "}"
