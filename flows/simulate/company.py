"""The simulated company: teams, products, keys and prompts, down to the workloads that send requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from flows.simulate.fleet import Gpu, default_fleet
from flows.simulate.models import BY_NAME, Model
from flows.simulate.rhythm import Rhythm

AtFormat = Literal["rfc3339", "epoch_ms", "epoch_s"]


@dataclass(frozen=True, slots=True)
class Workload:
    """One stream of like requests: the leaf of attribution.

    Parameters
    ----------
    share
        Part of the company's requests, on the average of a week; relative.
    fresh, fresh_sigma, output, output_sigma
        Lognormal input tokens beside the prefix, and output tokens: median and sigma of the logarithm.
    prefix_tokens, prefixes, hit_rate
        Tokens of the reusable prompt prefix, how many different ones there are, and how often a first request of a
        session finds it cached.
    session
        Mean number of requests in a burst by one user.
    outcome, outcome_share, outcome_usd
        What a request can bring, how often, and its typical value.
    omits
        Fields that this producer does not report.
    reports_cost
        Whether the producer gives `cost_usd` (a gateway that prices its calls).
    """

    team: str
    product: str
    provider: str
    model: str
    share: float
    rhythm: Rhythm
    utc_offset_h: float
    fresh: float
    output: float
    prompt_name: str = "main"
    prompt_version: str = "v1"
    environment: str = "prod"
    fresh_sigma: float = 0.9
    output_sigma: float = 0.8
    prefix_tokens: int = 0
    prefixes: int = 1
    hit_rate: float = 0.0
    stream: bool = True
    users: int = 400
    operation: str = "chat"
    tier: str = ""
    session: float = 2.5
    error_rate: float = 0.006
    quota_used: float = 0.35
    outcome: str = ""
    outcome_share: float = 0.0
    outcome_usd: float = 0.0
    at_format: AtFormat = "rfc3339"
    omits: tuple[str, ...] = ()
    reports_cost: bool = False
    key_number: int = 1

    @property
    def api_key_id(self) -> str:
        """Identity of the key that the workload calls with."""
        return f"key-{self.team}-{self.product}-{self.key_number}"

    @property
    def catalogue_entry(self) -> Model:
        """The model's speed and limits; those of a like model for one that the catalogue does not hold."""
        found = BY_NAME.get((self.provider, self.model))
        if found is not None:
            return found
        same = [m for m in BY_NAME.values() if m.provider == self.provider and m.ms_per_token > 0]
        slowest = max(same, key=lambda m: m.ms_per_token)
        kin = next((m for m in same if self.model in (m.heavier, m.successor, m.newcomer)), slowest)
        return replace(kin, name=self.model)

    def dim(self, name: str) -> str:
        """Value of one of the dimensions that incidents can name."""
        return str(getattr(self, name))


WORKLOAD_DIMS: tuple[str, ...] = (
    "team", "product", "environment", "provider", "model", "api_key_id", "prompt_name", "operation",
)  # fmt: skip
"""Dimensions of a workload by which an incident can choose it (`user_id` beside them)."""

_SONNET_AWS = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"

WORKLOADS: tuple[Workload, ...] = (
    Workload(
        "coding", "copilot", "anthropic", "claude-sonnet-4-5", 6, "office", 1, 1500, 160, "inline-edit", "v12",
        fresh_sigma=1.2, prefix_tokens=5200, prefixes=6, hit_rate=0.86, users=350, session=5, quota_used=0.42,
        outcome="accepted", outcome_share=0.3, outcome_usd=0.35,
    ),
    Workload(
        "coding", "agent", "anthropic", "claude-opus-4-7", 0.8, "office", 1, 4200, 520, "agent-loop", "v31",
        fresh_sigma=1.1, prefix_tokens=11000, prefixes=4, hit_rate=0.82, users=120, session=9, quota_used=0.38,
        outcome="merged", outcome_share=0.05, outcome_usd=14,
    ),
    Workload(
        "coding", "review", "openai", "gpt-5", 1.5, "office", 1, 3600, 420, "review", "v4", fresh_sigma=1.0,
        prefix_tokens=2048, hit_rate=0.7, stream=False, users=150, at_format="epoch_ms",
    ),
    Workload(
        "support", "assistant", "anthropic", "claude-haiku-4-5", 14, "consumer", -5, 420, 190, "answer", "v18",
        prefix_tokens=3300, prefixes=3, hit_rate=0.9, users=6000, session=3.5, outcome="resolved",
        outcome_share=0.28, outcome_usd=1.2,
    ),
    Workload(
        "support", "escalation", "anthropic", "claude-sonnet-4-5", 2, "consumer", -5, 1900, 340, "escalate", "v7",
        prefix_tokens=2600, hit_rate=0.75, users=900, quota_used=0.3, key_number=2, outcome="resolved",
        outcome_share=0.4, outcome_usd=4.5,
    ),
    Workload(
        "support", "summaries", "azure.ai.openai", "gpt-5-mini", 4, "office", -5, 2100, 140, "summary", "v3",
        prefix_tokens=1280, hit_rate=0.55, stream=False, users=220, omits=("prompt_version", "finish_reason"),
    ),
    Workload(
        "search", "answers", "gcp.vertex_ai", "gemini-2.5-flash", 11, "global", 0, 2600, 210, "grounded", "v22",
        fresh_sigma=0.8, prefix_tokens=1600, prefixes=2, hit_rate=0.6, users=9000, session=1.8, outcome="clicked",
        outcome_share=0.35, outcome_usd=0.04,
    ),
    Workload(
        "search", "ranking", "vllm", "qwen3-8b", 12, "global", 0, 900, 24, "rank", "v5", output_sigma=0.5,
        prefix_tokens=640, hit_rate=0.92, users=9000, session=1.5, stream=False,
    ),
    Workload(
        "search", "embeddings", "openai", "text-embedding-3-small", 8, "global", 0, 380, 0, "", "",
        stream=False, users=60, operation="embeddings", session=4, omits=("prompt_name", "prompt_version", "user_id"),
    ),
    Workload(
        "shop", "advisor", "openai", "gpt-5-mini", 9, "consumer", 1, 700, 260, "advisor", "v9", prefix_tokens=2432,
        prefixes=2, hit_rate=0.78, users=7000, session=3, outcome="order", outcome_share=0.06, outcome_usd=5.5,
    ),
    Workload(
        "shop", "descriptions", "aws.bedrock", "amazon.nova-lite-v1:0", 4, "office", 1, 520, 310, "describe", "v2",
        stream=False, users=40, session=6, omits=("user_id", "environment"),
    ),
    Workload(
        "documents", "contracts", "aws.bedrock", _SONNET_AWS, 1.6, "office", -8, 9500, 640, "clauses", "v6",
        fresh_sigma=1.0, prefix_tokens=4100, prefixes=2, hit_rate=0.0, users=90, outcome="reviewed",
        outcome_share=0.5, outcome_usd=9,
    ),
    Workload(
        "documents", "extraction", "gcp.vertex_ai", "gemini-2.5-pro", 1.8, "office", -8, 5200, 420, "extract", "v11",
        fresh_sigma=1.1, prefix_tokens=2200, hit_rate=0.5, stream=False, users=70, at_format="epoch_s",
    ),
    Workload(
        "documents", "indexing", "azure.ai.openai", "gpt-4.1-mini", 3, "nightly", -8, 3100, 90, "index", "v1",
        stream=False, users=4, tier="batch", session=12, quota_used=0.08, omits=("user_id", "ttft_ms"),
    ),
    Workload(
        "analytics", "sql-helper", "openai", "gpt-5", 2, "office", 5.5, 2900, 330, "sql", "v14", prefix_tokens=6144,
        prefixes=3, hit_rate=0.74, users=260, key_number=2, outcome="accepted", outcome_share=0.45, outcome_usd=0.9,
    ),
    Workload(
        "analytics", "reports", "gcp.vertex_ai", "gemini-2.5-flash-lite", 3, "hourly", 5.5, 1900, 380, "report", "v3",
        stream=False, users=12, session=8, omits=("user_id",),
    ),
    Workload(
        "voice", "phone-bot", "vllm", "llama-3.3-70b-instruct", 7, "consumer", 0, 520, 70, "dialogue", "v25",
        output_sigma=0.6, prefix_tokens=1800, prefixes=3, hit_rate=0.88, users=3500, session=6, outcome="handled",
        outcome_share=0.18, outcome_usd=2.2,
    ),
    Workload(
        "voice", "transcripts", "vllm", "llama-3.3-70b-instruct", 2, "global", 0, 2400, 150, "minutes", "v4",
        prefix_tokens=700, hit_rate=0.6, stream=False, users=300, key_number=2,
    ),
    Workload(
        "platform", "internal-chat", "openai", "gpt-4.1-mini", 4, "office", 0, 800, 240, "chat", "v2",
        prefix_tokens=1152, hit_rate=0.65, users=1200, session=4, reports_cost=True,
    ),
    Workload(
        "platform", "evaluation", "anthropic", "claude-haiku-4-5", 1.2, "nightly", 0, 1300, 320, "eval", "v8",
        environment="staging", stream=False, users=8, session=15, key_number=2, omits=("user_id", "outcome"),
    ),
    Workload(
        "coding", "copilot", "anthropic", "claude-sonnet-4-5", 0.4, "office", 1, 1500, 160, "inline-edit", "v13-rc1",
        environment="staging", prefix_tokens=5200, hit_rate=0.5, users=25, key_number=9, error_rate=0.03,
    ),
    Workload(
        "shop", "advisor", "openai", "gpt-5-mini", 0.3, "office", 1, 700, 260, "advisor", "v10-rc2",
        environment="staging", prefix_tokens=2432, hit_rate=0.4, users=15, key_number=9, error_rate=0.03,
    ),
)  # fmt: skip
"""The company before the seed varies it."""


@dataclass(frozen=True, slots=True)
class Company:
    """Everything that sends telemetry.

    Parameters
    ----------
    workloads
        Streams of requests; shares are relative.
    gpus
        The fleet.
    """

    workloads: tuple[Workload, ...]
    gpus: tuple[Gpu, ...]

    @classmethod
    def default(cls, seed: int) -> Company:
        """The default company; the seed varies sizes, prompts and prices of success, not the names."""
        rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        workloads = []
        for workload in WORKLOADS:
            size, fresh, output, hit, fail = rng.normal(size=5)
            workloads.append(
                replace(
                    workload,
                    share=workload.share * float(np.exp(0.3 * size)),
                    fresh=workload.fresh * float(np.exp(0.15 * fresh)),
                    output=workload.output * float(np.exp(0.15 * output)),
                    hit_rate=min(0.95, workload.hit_rate * float(np.exp(0.05 * hit))),
                    error_rate=workload.error_rate * float(np.exp(0.4 * fail)),
                )
            )
        return cls(tuple(workloads), default_fleet(seed))
