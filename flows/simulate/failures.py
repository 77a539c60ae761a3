"""How requests fail at each provider: status, codes and messages as the providers word them."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.cause import RETRY_HELPS, Cause


@dataclass(frozen=True, slots=True)
class Failure:
    """One way to fail.

    Parameters
    ----------
    provider
        Provider that answers so; empty for failures that do not come from a provider (gateway, network).
    cause
        The verdict that a reader of the event should reach.
    weight
        Share among a provider's everyday failures, relative; 0 for those that only incidents bring.
    latency_ms
        Typical time until the failure is known.
    retry_after_ms
        What the answer asks to wait, or 0.
    """

    provider: str
    cause: Cause
    status: int
    error_type: str
    error_code: str
    message: str
    weight: float = 0.0
    latency_ms: float = 180.0
    retry_after_ms: int = 0

    @property
    def retried(self) -> bool:
        """Whether clients send such a request again."""
        return RETRY_HELPS[self.cause] or self.cause is Cause.SELF_HOSTED_SATURATION


_OPENAI_QUOTA = "Rate limit reached for requests per min (RPM). Please try again in 2s."
_AZURE_QUOTA = "Requests to the ChatCompletions operation have exceeded the call rate limit of your current tier."

FAILURES: tuple[Failure, ...] = (
    Failure("openai", Cause.VENDOR_QUOTA, 429, "rate_limit_error", "rate_limit_exceeded", _OPENAI_QUOTA, 2, 120, 2_000),
    Failure("openai", Cause.BUDGET, 429, "insufficient_quota", "insufficient_quota", "You exceeded your quota."),
    Failure("openai", Cause.VENDOR_CAPACITY, 503, "server_error", "overloaded", "The server is overloaded.", 3, 900),
    Failure("openai", Cause.AUTH, 401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    Failure(
        "openai", Cause.BAD_REQUEST, 400, "invalid_request_error", "context_length_exceeded",
        "This model's maximum context length was exceeded.", 3,
    ),
    Failure("anthropic", Cause.VENDOR_CAPACITY, 529, "overloaded_error", "", "Overloaded", 4, 700),
    Failure(
        "anthropic", Cause.VENDOR_QUOTA, 429, "rate_limit_error", "",
        "This request would exceed your organization's rate limit of input tokens per minute.", 2, 150, 4_000,
    ),
    Failure("anthropic", Cause.AUTH, 401, "authentication_error", "", "invalid x-api-key"),
    Failure("anthropic", Cause.BAD_REQUEST, 400, "invalid_request_error", "", "messages: roles must alternate", 2),
    Failure(
        "anthropic", Cause.BUDGET, 400, "invalid_request_error", "",
        "Your credit balance is too low to access the Anthropic API.",
    ),
    Failure(
        "aws.bedrock", Cause.VENDOR_QUOTA, 429, "ThrottlingException", "ThrottlingException",
        "Too many requests, please wait before trying again.", 3, 120, 0,
    ),
    Failure(
        "aws.bedrock", Cause.VENDOR_CAPACITY, 503, "ServiceUnavailableException", "ServiceUnavailableException",
        "Bedrock is unable to process your request.", 2, 600,
    ),
    Failure(
        "aws.bedrock", Cause.AUTH, 403, "UnrecognizedClientException", "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    ),
    Failure(
        "aws.bedrock", Cause.BAD_REQUEST, 400, "ValidationException", "ValidationException",
        "Input is too long for requested model.", 2,
    ),
    Failure("azure.ai.openai", Cause.VENDOR_QUOTA, 429, "rate_limit_error", "429", _AZURE_QUOTA, 3, 90, 10_000),
    Failure(
        "azure.ai.openai", Cause.VENDOR_CAPACITY, 503, "server_error", "ServiceUnavailable",
        "The service is temporarily unable to process your request.", 2, 500,
    ),
    Failure(
        "azure.ai.openai", Cause.AUTH, 401, "authentication_error", "401",
        "Access denied due to invalid subscription key or wrong API endpoint.",
    ),
    Failure(
        "azure.ai.openai", Cause.BAD_REQUEST, 400, "invalid_request_error", "content_filter",
        "The response was filtered due to the prompt triggering the content management policy.", 3,
    ),
    Failure(
        "gcp.vertex_ai", Cause.VENDOR_QUOTA, 429, "RESOURCE_EXHAUSTED", "429",
        "Quota exceeded for generate_content requests per minute.", 3, 120,
    ),
    Failure(
        "gcp.vertex_ai", Cause.VENDOR_CAPACITY, 503, "UNAVAILABLE", "503",
        "The model is overloaded. Please try again later.", 3, 600,
    ),
    Failure(
        "gcp.vertex_ai", Cause.AUTH, 403, "PERMISSION_DENIED", "403",
        "Permission 'aiplatform.endpoints.predict' denied on resource.",
    ),
    Failure("gcp.vertex_ai", Cause.BAD_REQUEST, 400, "INVALID_ARGUMENT", "400", "Invalid argument.", 2),
    Failure(
        "vllm", Cause.SELF_HOSTED_SATURATION, 503, "ServiceUnavailableError", "queue_full",
        "The engine's waiting queue is full.", 1, 2_500,
    ),
    Failure("vllm", Cause.AUTH, 401, "AuthenticationError", "401", "Unauthorized"),
    Failure(
        "vllm", Cause.BAD_REQUEST, 400, "BadRequestError", "400",
        "This model's maximum context length is 32768 tokens.", 2,
    ),
    Failure("", Cause.TIMEOUT, 504, "timeout", "gateway_timeout", "Upstream request timed out after 60 s.", 2, 60_000),
    Failure("", Cause.TIMEOUT, 0, "timeout", "read_timeout", "Read timed out.", 1, 30_000),
    Failure(
        "", Cause.GATEWAY_LIMIT, 429, "litellm_rate_limit", "gateway_rate_limit",
        "Gateway limit of the API key reached (rpm).", 0, 20, 5_000,
    ),
    Failure(
        "", Cause.CONCURRENCY, 429, "concurrent_requests", "max_parallel_requests",
        "Max parallel request limit reached.", 0, 20, 1_000,
    ),
)  # fmt: skip
"""All failures. Their order is their number in `Rows.failure`, plus one (0 is success)."""


def everyday(provider: str) -> tuple[list[int], list[float]]:
    """Numbers of a provider's everyday failures with their cumulative shares, the last 1."""
    chosen = [(i + 1, f.weight) for i, f in enumerate(FAILURES) if f.weight and f.provider in ("", provider)]
    total = sum(weight for _, weight in chosen)
    shares, running = [], 0.0
    for _, weight in chosen:
        running += weight / total
        shares.append(running)
    shares[-1] = 1.0
    return [number for number, _ in chosen], shares


def failure_of(provider: str, cause: Cause) -> int:
    """Number of the failure by which `cause` shows at `provider`, 0 where it cannot.

    Examples
    --------
    >>> FAILURES[failure_of("anthropic", Cause.VENDOR_CAPACITY) - 1].status
    529
    >>> failure_of("vllm", Cause.VENDOR_QUOTA)
    0
    """
    for i, failure in enumerate(FAILURES):
        if failure.cause is cause and failure.provider in ("", provider):
            return i + 1
    return 0
