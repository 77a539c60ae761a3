"""The GPU fleet of the simulated company: clusters, nodes, pools, and who holds what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

GIB = 1024**3

Role = Literal["engine", "training", "batch", "held_idle", "free"]


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU model: memory, power limit and what an hour of it costs."""

    name: str
    memory_bytes: int
    power_limit_w: float
    idle_w: float
    usd_per_hour: str


H100 = Card("NVIDIA H100 80GB HBM3", 80 * GIB, 700, 70, "2.49")
A100 = Card("NVIDIA A100-SXM4-80GB", 80 * GIB, 400, 60, "1.35")
L40S = Card("NVIDIA L40S", 48 * GIB, 350, 35, "0.86")
H100_MIG = Card("NVIDIA H100 80GB HBM3", 10 * GIB, 700, 70, "0.36")
"""Hourly prices are list prices of the kind that GPU clouds ask; the events carry them."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU (or MIG instance) and who holds it.

    Parameters
    ----------
    role
        What it does: serves a model, trains, works through batches, is held but idle, or is free.
    model
        Model that its engine serves.
    leads_engine
        Whether this GPU reports the engine's queue (rank 0 of a tensor-parallel group).
    running_limit
        Requests that the engine runs at a time (vLLM `max_num_seqs`).
    """

    cluster: str
    node: str
    index: int
    uuid: str
    card: Card
    pool: str
    role: Role
    namespace: str = ""
    pod: str = ""
    team: str = ""
    model: str = ""
    mig_id: str = ""
    util_source: str = "sm_active"
    leads_engine: bool = False
    running_limit: int = 0


def default_fleet(seed: int) -> tuple[Gpu, ...]:
    """The default fleet: 3 clusters, 9 nodes, 55 GPUs and MIG instances. The seed gives the UUIDs."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    gpus: list[Gpu] = []

    def uuid() -> str:
        text = rng.bytes(16).hex()
        return f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def node(cluster: str, name: str, card: Card, pool: str, roles: list[tuple[int, Role, str, str]]) -> None:
        """Add a node; `roles` are (GPUs, role, team, model or job) in order of their index."""
        index = 0
        for group, (count, role, team, job) in enumerate(roles):
            for rank in range(count):
                held = role != "free"
                gpus.append(
                    Gpu(
                        cluster, name, index, uuid(), card, pool, role,
                        namespace=team if held else "", team=team, pod=f"{job}-{name}-{group}" if held else "",
                        model=job if role == "engine" else "", leads_engine=role == "engine" and rank == 0,
                        running_limit=256 if role == "engine" else 0,
                        util_source="gpu_util" if card is L40S else "sm_active",
                    )
                )  # fmt: skip
                index += 1

    llama, qwen = "llama-3.3-70b-instruct", "qwen3-8b"
    small: list[tuple[int, Role, str, str]] = [(1, "engine", "search", qwen)] * 4
    node("fra1", "fra1-h100-01", H100, "serving", [(4, "engine", "voice", llama), (4, "engine", "voice", llama)])
    node("fra1", "fra1-h100-02", H100, "serving", [(4, "engine", "voice", llama), (4, "free", "", "")])
    node("fra1", "fra1-l40s-01", L40S, "serving-small", small)
    node("fra1", "fra1-l40s-02", L40S, "serving-small", [*small[:2], (2, "free", "", "")])
    node("iad2", "iad2-h100-01", H100, "training", [(8, "training", "research", "pretrain-rank")])
    node("iad2", "iad2-a100-01", A100, "training", [(8, "training", "coding", "finetune-copilot")])
    batch: list[tuple[int, Role, str, str]] = [(4, "batch", "documents", "ocr"), (4, "batch", "analytics", "backfill")]
    node("iad2", "iad2-a100-02", A100, "batch", batch)
    notebooks: list[tuple[int, Role, str, str]] = [(2, "held_idle", "research", "notebook"), (2, "free", "", "")]
    node("lab", "lab-a100-01", A100, "notebooks", notebooks)
    shared = uuid()
    gpus.extend(
        Gpu(
            "lab", "lab-h100-01", 0, shared, H100_MIG, "notebooks", "batch" if i < 4 else "free",
            namespace="research" if i < 4 else "", pod=f"experiment-{i}" if i < 4 else "",
            team="research" if i < 4 else "", mig_id=str(7 + i), util_source="gr_engine_active",
        )
        for i in range(7)
    )  # fmt: skip
    return tuple(gpus)
