"""Decoded events as columns: the form in which blocks are priced, folded and written.

Every array has shape (n,), n the number of usable events of the block. "Not reported" is `MISSING` in integer
columns, NaN in float columns and the empty string in text columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MISSING = -1
"""Marks an integer that was not reported."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

ON_TIME, LATE, TOO_LATE = 0, 1, 2
"""Values of `lateness`: before its window closed, within the allowed lateness, after it. Judged against the event's
own partition, so that only its position in the partition decides."""

DIMENSIONS: tuple[str, ...] = (
    "team", "product", "user_id", "api_key_id", "environment", "provider", "model", "model_served", "region",
    "deployment", "operation", "service_tier", "prompt_name", "prompt_version", "error_type", "error_code",
    "finish_reason", "outcome",
)  # fmt: skip
"""Text columns of a request by which series can be formed (grouping sets name these)."""

GPU_DIMENSIONS: tuple[str, ...] = (
    "cluster", "node", "gpu_uuid", "gpu_index", "mig_id", "gpu_model", "pool", "namespace", "pod", "team", "model",
    "util_source",
)  # fmt: skip
"""Text columns of a GPU sample (`gpu_index` as text)."""


@dataclass(slots=True)
class Coded:
    """A dictionary-encoded text column.

    Parameters
    ----------
    codes
        int32, shape (n,): index into `values`.
    values
        Distinct texts; the empty string stands for "not reported". Values may occur that no row uses.
    """

    codes: npt.NDArray[np.int32]
    values: list[str]

    def texts(self) -> list[str]:
        """The column as plain texts, for tests and small outputs."""
        return [self.values[c] for c in self.codes.tolist()]


@dataclass(slots=True)
class RequestColumns:
    """The usable request events of one block, in order of their position."""

    topic: str
    partition: int
    offsets: IntArray
    positions: IntArray
    """Index of the event inside its message."""
    event_id: list[str]
    at_ns: IntArray
    """Event time, nanoseconds since the epoch."""
    lateness: npt.NDArray[np.uint8]
    dims: dict[str, Coded]
    """Every entry of `DIMENSIONS`, full texts, as written to `requests`."""
    group_dims: dict[str, Coded]
    """The dimensions of the configured grouping sets with bounded cardinality: rare values read `other`."""
    prefix_hash: Coded
    prefix_repeated: npt.NDArray[np.bool_]
    """The prefix was seen before in this partition, for the same model, within the cache's time to live."""
    status: IntArray
    failed: npt.NDArray[np.bool_]
    """status >= 400, status 0, or an `error_type` was given."""
    cause: npt.NDArray[np.uint8]
    """`schemas.cause.Cause` of each failed event, 0 otherwise."""
    stream: npt.NDArray[np.int8]
    """1, 0 or `MISSING`."""
    attempt: IntArray
    input_tokens: IntArray
    output_tokens: IntArray
    cache_read_tokens: IntArray
    cache_write_tokens: IntArray
    reasoning_tokens: IntArray
    prefix_tokens: IntArray
    latency_ms: FloatArray
    ttft_ms: FloatArray
    retry_after_ms: FloatArray
    ratelimit_limit_requests: IntArray
    ratelimit_remaining_requests: IntArray
    ratelimit_limit_tokens: IntArray
    ratelimit_remaining_tokens: IntArray
    cost_given_pico: IntArray
    """Cost in pico-USD as the producer gave it, or `MISSING`."""
    outcome_value_pico: IntArray
    error_message: dict[int, str] = field(default_factory=dict)
    """Redacted, truncated message of failed events by row number."""

    def __len__(self) -> int:
        """Number of events."""
        return len(self.at_ns)


PRICED, GIVEN, UNPRICED, PARTIAL = 0, 1, 2, 3
PRICING_STATUS: tuple[str, ...] = ("priced", "given", "unpriced", "partial")
"""By code: from the price table; given by the producer; no price known; some token kinds had no price."""


@dataclass(slots=True)
class Costs:
    """What each event of a block cost, in pico-USD, shape (n,) each.

    `total = input + cache_read + cache_write + output + reasoning` for `priced` and `partial` rows; `given` rows carry
    the producer's total, their parts 0 where no price is known. `unpriced` rows have `total == MISSING`, parts 0.
    A `partial` row whose tokens are not known (no usage reported, implausible counts) has `total == MISSING` too, and
    parts 0: whether a cost is known is told by the total, not by the status.
    """

    status: npt.NDArray[np.uint8]
    total_pico: IntArray
    input_pico: IntArray
    """Input tokens neither read from nor written to the cache."""
    cache_read_pico: IntArray
    cache_write_pico: IntArray
    output_pico: IntArray
    """Output tokens without reasoning."""
    reasoning_pico: IntArray
    missed_cache_pico: IntArray
    """What reading a repeated prefix from the cache would have saved."""
    source: Coded
    """Where the price came from: `genai-prices`, `overlay`, `event`, or empty."""


@dataclass(slots=True)
class GpuColumns:
    """The usable GPU samples of one block, in order of their position."""

    topic: str
    partition: int
    offsets: IntArray
    positions: IntArray
    at_ns: IntArray
    lateness: npt.NDArray[np.uint8]
    dims: dict[str, Coded]
    """Every entry of `GPU_DIMENSIONS`."""
    util: FloatArray
    memory_used_bytes: IntArray
    memory_total_bytes: IntArray
    power_w: FloatArray
    power_limit_w: FloatArray
    temperature_c: FloatArray
    xid: IntArray
    ecc_uncorrected: IntArray
    throttled: npt.NDArray[np.int8]
    """1, 0 or `MISSING`."""
    requests_running: FloatArray
    requests_waiting: FloatArray
    kv_cache_usage: FloatArray
    preemptions: IntArray
    tokens_per_s: FloatArray
    usd_per_hour_pico: IntArray
    """Price of the GPU in pico-USD per hour (given, or from the price overlay), or `MISSING`."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.at_ns)
