# ruff: noqa: E501 - in the table of answers, one answer a line reads better than wrapped ones
from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.causes import MESSAGE_CHARS, classify, default_rules, gather, load_rules
from schemas.cause import CAUSES, RETRY_HELPS, Cause
from schemas.errors import BadSettings

DATA = Path(os.environ.get("TIDEGAUGE_DATA", Path(__file__).parents[3] / "shared" / "data"))
EXCHANGES = DATA / "payloads" / "provider_http_exchanges.jsonl.gz"

OPENAI_TPM = (
    "Rate limit reached for gpt-4o in organization org-abc on tokens per min (TPM): Limit 30000, Used 28341, "
    "Requested 3012. Please try again in 2.7s. Visit https://platform.openai.com/account/rate-limits to learn more."
)
OPENAI_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
GEMINI_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "head to: https://ai.google.dev/gemini-api/docs/rate-limits. * Quota exceeded for metric: generativelanguage."
    "googleapis.com/generate_content_free_tier_requests, limit: 10. Please retry in 27.3s."
)
AZURE_TPM = (
    "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-08-01-preview have exceeded "
    "token rate limit of your current OpenAI S0 pricing tier. Please retry after 22 seconds."
)
ANTHROPIC_LIMIT = "You have reached your specified API usage limits. You will regain access on 2026-04-01 at 00:00 UTC."
LITELLM_TEAM = (
    "LiteLLM Rate Limit Handler for rate limit type = team. Crossed TPM / RPM / Max Parallel Request Limit. current "
    "rpm: 1, rpm limit: 15, current tpm: 12260, tpm limit: 5000"
)

Q, C, G, P = Cause.VENDOR_QUOTA, Cause.VENDOR_CAPACITY, Cause.GATEWAY_LIMIT, Cause.CONCURRENCY
B, S, T, A = Cause.BUDGET, Cause.SELF_HOSTED_SATURATION, Cause.TIMEOUT, Cause.AUTH
R, M, U = Cause.BAD_REQUEST, Cause.MODEL, Cause.UNKNOWN

# (status, error_type, error_code, message, provider, expected)
ANSWERS: list[tuple[int, str, str, str, str, Cause]] = [
    # OpenAI
    (429, "tokens", "rate_limit_exceeded", OPENAI_TPM, "openai", Q),
    (429, "requests", "rate_limit_exceeded", "Rate limit reached for o3: Limit 500 requests per min.", "openai", Q),
    (429, "RateLimitError", "", f"Error code: 429 - {{'error': {{'message': '{OPENAI_TPM}'}}}}", "openai", Q),
    (429, "insufficient_quota", "insufficient_quota", OPENAI_QUOTA, "openai", B),
    (429, "RateLimitError", "", "Error code: 429 - {'error': {'code': 'insufficient_quota'}}", "openai", B),
    (429, "invalid_request_error", "billing_hard_limit_reached", "Billing hard limit has been reached", "openai", B),
    (429, "", "project_spend_limit_exceeded", "", "openai", B),
    (429, "", "enforced_spend_limit_reached", "", "anthropic", B),
    (429, "", "credit_balance_exhausted", "", "openai", B),
    (429, "tokens", "rate_limit_exceeded",
     "Request too large for gpt-4o in organization org-abc on tokens per min (TPM): Limit 30000, Requested 41211. The "
     "input or output tokens must be reduced in order to run successfully.", "openai", R),
    (503, "server_error", "", "The server is currently overloaded with other requests. Sorry about that!", "openai", C),
    (500, "server_error", "", "The server had an error while processing your request. Sorry about that!", "openai", C),
    (502, "", "", "<html><head><title>502 Bad Gateway</title></head></html>", "openai", C),
    (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-***. You can find ...", "openai", A),
    (403, "invalid_request_error", "model_not_found", "Project `proj_x` does not have access to model `o3`", "openai", A),
    (404, "invalid_request_error", "model_not_found",
     "The model `gpt-5-nan` does not exist or you do not have access to it.", "openai", M),
    (404, "invalid_request_error", "", "Invalid URL (POST /v1/chat/completion)", "openai", R),
    (400, "invalid_request_error", "context_length_exceeded",
     "This model's maximum context length is 128000 tokens. However, your messages resulted in 130211.", "openai", R),
    (400, "invalid_request_error", "unsupported_parameter", "Unsupported parameter: 'max_tokens'", "openai", R),
    (400, "invalid_request_error", "", "Unknown parameter: 'timeout'. The request timed out setting is gone", "openai", R),
    (0, "APITimeoutError", "", "Request timed out.", "openai", T),
    (0, "APIConnectionError", "", "Connection error.", "openai", C),
    (0, "httpx.RemoteProtocolError", "", "peer closed connection without sending complete message body", "openai", C),
    (0, "java.net.UnknownHostException", "", "api.openai.com", "openai", U),
    (0, "server_certificate_invalid", "", "", "openai", U),
    (0, "429", "", "", "openai", Q),
    (0, "500", "", "", "openai", C),
    # Anthropic
    (429, "rate_limit_error", "", "This request would exceed your organization's rate limit of 30,000 input tokens per "
     "minute", "anthropic", Q),
    (429, "rate_limit_error", "", "Number of concurrent connections has exceeded your rate limit.", "anthropic", P),
    (429, "rate_limit_error", "", "Extra usage is required for long context requests.", "anthropic", B),
    (529, "overloaded_error", "", "Overloaded", "anthropic", C),
    (200, "overloaded_error", "", "Overloaded", "anthropic", C),
    (200, "api_error", "", "Internal server error", "anthropic", C),
    (500, "api_error", "", "Internal server error", "anthropic", C),
    (400, "invalid_request_error", "", ANTHROPIC_LIMIT, "anthropic", Q),
    (400, "invalid_request_error", "", "Your credit balance is too low to access the Anthropic API. Please go to Plans "
     "& Billing to upgrade or purchase credits.", "anthropic", B),
    (400, "invalid_request_error", "", "prompt is too long: 208310 tokens > 200000 maximum", "anthropic", R),
    (413, "request_too_large", "", "Request exceeds the maximum size", "anthropic", R),
    (401, "authentication_error", "", "invalid x-api-key", "anthropic", A),
    (403, "permission_error", "", "Your API key does not have permission to use the specified resource", "anthropic", A),
    (404, "not_found_error", "", "model: claude-3-opus-latest-x", "anthropic", M),
    (402, "billing_error", "", "There is an issue with your payment", "anthropic", B),
    (504, "timeout_error", "", "Request timed out", "anthropic", T),
    # Azure
    (429, "", "429", AZURE_TPM, "azure.ai.openai", Q),
    (429, "", "429", "Requests have exceeded call rate limit of your current OpenAI S0 pricing tier.", "azure.ai.openai", Q),
    (429, "", "NoCapacity", "The system is currently experiencing high demand and cannot process your request.",
     "azure.ai.openai", C),
    (400, "", "content_filter", "The response was filtered due to the prompt triggering Azure OpenAI's content management "
     "policy.", "azure.ai.openai", R),
    (404, "", "DeploymentNotFound", "The API deployment for this resource does not exist.", "azure.ai.openai", M),
    (408, "", "Timeout", "The operation was timeout.", "azure.ai.openai", T),
    (503, "", "InternalServerError", "The service is temporarily unable to process your request.", "azure.ai.openai", C),
    # Bedrock
    (429, "ThrottlingException", "", "Too many tokens, please wait before trying again.", "aws.bedrock", Q),
    (400, "com.amazonaws.bedrock#ThrottlingException:http://internal/", "", "Rate exceeded", "aws.bedrock", Q),
    (400, "ServiceQuotaExceededException", "", "Your request exceeds the service quota.", "aws.bedrock", Q),
    (408, "ModelTimeoutException", "", "The request took too long to process.", "aws.bedrock", T),
    (0, "botocore.exceptions.ReadTimeoutError", "", "Read timeout on endpoint URL", "aws.bedrock", T),
    (429, "ModelNotReadyException", "", "Model is not ready for inference.", "aws.bedrock", C),
    (424, "ModelErrorException", "", "The request failed due to an error while processing the model.", "aws.bedrock", M),
    (503, "ServiceUnavailableException", "", "Bedrock is unable to process your request.", "aws.bedrock", C),
    (403, "AccessDeniedException", "", "You don't have access to the model with the specified model ID.", "aws.bedrock", A),
    (403, "ExpiredTokenException", "", "The security token included in the request is expired", "aws.bedrock", A),
    (400, "ValidationException", "", "Input is too long for requested model.", "aws.bedrock", R),
    (400, "ValidationException", "", "Malformed input request: #: required key [messages] not found", "aws.bedrock", R),
    (400, "ValidationException", "", "The provided model identifier is invalid.", "aws.bedrock", M),
    (400, "ValidationException", "", "Invocation of model ID anthropic.claude-v4 with on-demand throughput isn’t "
     "supported. Retry your request with an inference profile.", "aws.bedrock", M),
    (404, "ResourceNotFoundException", "", "This model version has reached the end of its life.", "aws.bedrock", M),
    # Vertex AI and Gemini
    (429, "RESOURCE_EXHAUSTED", "", "Resource exhausted. Please try again later. Please refer to https://cloud.google."
     "com/vertex-ai/generative-ai/docs/error-code-429 for more details.", "gcp.vertex_ai", C),
    (429, "RESOURCE_EXHAUSTED", "", "Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute_"
     "per_project_per_base_model with base model: gemini-2.5-pro.", "gcp.vertex_ai", Q),
    (429, "RESOURCE_EXHAUSTED", "", "Too many requests. Exceeded the Provisioned Throughput.", "gcp.vertex_ai", Q),
    (429, "RESOURCE_EXHAUSTED", "", GEMINI_QUOTA, "gcp.gemini", Q),
    (503, "UNAVAILABLE", "", "The model is overloaded. Please try again later.", "gcp.gemini", C),
    (504, "DEADLINE_EXCEEDED", "", "The request timed out. Please try again.", "gcp.gemini", T),
    (400, "INVALID_ARGUMENT", "", "API key not valid. Please pass a valid API key.", "gcp.gemini", A),
    (400, "INVALID_ARGUMENT", "", "The input token count (1200000) exceeds the maximum number of tokens allowed "
     "(1048575).", "gcp.gemini", R),
    (400, "FAILED_PRECONDITION", "", "User location is not supported for the API use.", "gcp.gemini", A),
    (404, "NOT_FOUND", "", "Publisher Model `projects/p/models/gemini-9` was not found", "gcp.vertex_ai", M),
    # LiteLLM and other gateways
    (429, "RateLimitError", "429", LITELLM_TEAM, "openai", G),
    (429, "litellm_rate_limit", "", "", "openai", G),
    (429, "RateLimitError", "litellm_batch_rate_limit", "", "openai", G),
    (429, "vendor_rate_limit", "", "", "openai", Q),
    (429, "RateLimitError", "concurrent_requests", "", "openai", P),
    (429, "RateLimitError", "budget", "", "openai", B),
    (429, "RateLimitError", "max_iterations", "", "openai", G),
    (429, "", "", "Max parallel request limit reached Hit limit for LiteLLM Virtual Key user_api_key_hash: 37", "openai", P),
    (429, "", "", "Rate limit exceeded for api_key: 88dc. Limit type: tokens. Current limit: 500", "openai", G),
    (429, "", "", "Rate limit exceeded for team: 88dc. Limit type: max_parallel_requests. Limit: 5", "openai", P),
    (429, "RouterRateLimitError", "", "No deployments available for selected model, Try again in 60 seconds.", "azure", G),
    (400, "budget_exceeded", "400", "Budget has been exceeded! Current cost: 12.1, Max budget: 10.0", "openai", B),
    (429, "BudgetExceededError", "", "", "openai", B),
    (500, "litellm.InternalServerError", "", 'AnthropicException - {"type":"error","error":{"type":"overloaded_error",'
     '"message":"Overloaded"}}', "anthropic", C),
    (400, "litellm.ContextWindowExceededError", "", "litellm.BadRequestError: too much", "openai", R),
    (400, "litellm.BadRequestError", "", f'AnthropicException - {{"message":"{ANTHROPIC_LIMIT}"}}', "anthropic", Q),
    (408, "litellm.Timeout", "", "APITimeoutError - Request timed out. Error_str: Request timed out.", "openai", T),
    (429, "", "", '{"message":"API rate limit exceeded"}', "openai", G),
    (402, "", "", "Insufficient Balance", "deepseek", B),
    (402, "", "", "", "openrouter", B),
    (401, "", "", "", "cohere", A),
    (403, "", "", "<html>Forbidden</html>", "openai", A),
    (413, "", "", "Payload Too Large", "mistral_ai", R),
    (403, "", "", "Your team has either used all available credits or reached its monthly spending limit.", "x_ai", B),
    (429, "token_rate_limit_exceeded", "429", "Token rate limit exceeded, please try again later.", "lepton", Q),
    (400, "invalid_request_error", "model_decommissioned", "The model `mixtral-8x7b` has been decommissioned", "groq", M),
    (412, "", "", "Account acme is suspended, possibly due to reaching the monthly spending limit", "fireworks", B),
    (400, "Arrearage", "", "Access denied, please make sure your account is in good standing.", "alibaba", B),
    (498, "", "capacity_exceeded", "Flex tier capacity exceeded", "groq", C),
    (413, "tokens", "rate_limit_exceeded", "Request too large for model `x` on tokens per minute (TPM)", "groq", R),
    (429, "", "3505", "Service tier capacity exceeded for this model.", "mistral_ai", C),
    (429, "", "", "You are using a Trial key, which is limited to 40 API calls / minute.", "cohere", Q),
    (429, "rate_limit_reached_error", "", "Your account request reached organization max concurrency: 3", "moonshot_ai", P),
    (429, "engine_overloaded_error", "", "The engine is currently overloaded, please try again later", "moonshot_ai", C),
    (429, "exceeded_current_quota_error", "", "Your account is suspended, please check your plan", "moonshot_ai", B),
    (403, "", "", "Your chosen model requires moderation and your input was flagged for violence", "openrouter", R),
    (403, "request_forbidden", "unsupported_country_region_territory", "Country not supported", "openai", A),
    (503, "", "slow_down", "Slow down", "openai", C),
    (503, "", "", "Model meta/x is currently loading", "huggingface", C),
    (404, "", "", "Not Found", "together", M),
    (422, "", "", "Unprocessable Entity", "mistral_ai", R),
    (410, "", "", "Gone", "cohere", M),
    # our own engines
    (503, "", "", "The request queue is full.", "sglang", S),
    (503, "", "", "The request queue is full.", "a-proxy-without-a-known-name", S),
    (503, "", "server_overloaded", "", "vllm", S),
    (429, "", "", "", "vllm", S),
    (429, "overloaded", "", "Model is overloaded", "tgi", S),
    (503, "", "", "server busy, please try again.  maximum pending requests exceeded", "ollama", S),
    (500, "", "", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.2 GiB", "vllm", S),
    (500, "", "", "KV cache pool is full. Retract requests.", "self_hosted", S),
    (502, "", "", "Bad Gateway", "hosted_vllm", S),
    (0, "ConnectError", "", "[Errno 111] Connection refused", "vllm", S),
    (504, "", "", "upstream request timeout", "vllm", T),
    (500, "", "", "Internal Server Error", "vllm", M),
    (429, "", "", "local_rate_limited", "vllm", G),
    (429, "", "", "Too many requests: rate limit of 20 requests per second", "vllm", G),
    (400, "BadRequestError", "400", "This model's maximum context length is 4096 tokens.", "vllm", R),
    (404, "NotFoundError", "404", "The model `llama` does not exist.", "vllm", M),
    # traces of ours, and nothing to go by
    (0, "no_response_tokens", "", "", "azure.ai.openai", U),
    (200, "output_too_short", "-100", "Output too few tokens 97", "aws.bedrock", M),
    (0, "benchmark_error", "-1", "", "together", U),
    (0, "", "", "", "", U),
    (999, "", "", "", "", U),
    (501, "", "", "", "openai", C),
    (418, "", "", "", "openai", R),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "error_type", "error_code", "message", "provider", "cause"),
    ANSWERS,
    ids=[f"{n}-{row[4]}-{row[0]}-{row[1] or row[2] or row[3][:30]}" for n, row in enumerate(ANSWERS)],
)
def test_answer_gets_its_cause(
    status: int, error_type: str, error_code: str, message: str, provider: str, cause: Cause
) -> None:
    assert classify(status, error_type, error_code, message, provider) is cause


def test_every_cause_is_shown_by_an_answer() -> None:
    assert {row[-1] for row in ANSWERS} == set(CAUSES)


def test_every_rule_decides_some_answer() -> None:
    rules = default_rules()
    rows = [(*row[:5], False) for row in ANSWERS]
    rows += [(429, "", "", "Slow down", "openai", True), (429, "", "", "", "vllm", True)]
    decided = [rules.first(gather(rules, *row)) for row in rows]
    assert {rule.name for rule in rules.rules} - {rule.name for rule in decided if rule} == set()


def test_recorded_error_answers_of_providers_get_their_cause() -> None:
    if not EXCHANGES.exists():
        pytest.skip("shared/data is not here")
    verdicts = []
    with gzip.open(EXCHANGES, "rt", encoding="utf-8") as file:
        for exchange in map(json.loads, file):
            if exchange["status"] >= 400:
                error = json.loads(exchange["response"])["error"]
                cause = classify(exchange["status"], error.get("type"), error.get("code"), error["message"])
                verdicts.append((exchange["status"], error.get("code"), cause))
    assert sorted(verdicts) == [
        (400, "invalid_image_url", Cause.BAD_REQUEST),
        (400, "invalid_request", Cause.BAD_REQUEST),
        (400, "unknown_parameter", Cause.BAD_REQUEST),
        (401, "401", Cause.AUTH),
        (404, "DeploymentNotFound", Cause.MODEL),
    ]


def test_success_has_no_cause() -> None:
    assert classify(200) is Cause.NONE
    assert classify(200, "", "", "", "openai", 0, 0) is Cause.NONE
    assert classify(304) is Cause.NONE


def test_missing_and_empty_say_the_same() -> None:
    assert (
        classify(429, None, None, None, None, None, None) is classify(429, "", "", "", "", -1, -1) is Cause.VENDOR_QUOTA
    )


def test_remaining_quota_of_zero_tells_a_quota_from_a_shared_pool() -> None:
    message = "Resource exhausted. Please try again later."
    assert classify(429, message=message, provider="gcp.vertex_ai") is Cause.VENDOR_CAPACITY
    for left in ((0, 5), (5, 0), (0, None)):
        assert classify(429, None, None, message, "gcp.vertex_ai", *left) is Cause.VENDOR_QUOTA


def test_quota_headers_on_a_self_hosted_engine_mean_a_limiter_before_it() -> None:
    assert classify(429, provider="vllm") is Cause.SELF_HOSTED_SATURATION
    assert classify(429, provider="vllm", ratelimit_remaining_requests=0) is Cause.GATEWAY_LIMIT


def test_only_the_start_of_a_message_counts() -> None:
    assert classify(500, message="x " * (MESSAGE_CHARS // 2) + "insufficient_quota") is Cause.VENDOR_CAPACITY


def test_status_is_read_from_the_start_of_a_message_where_no_other_is_known() -> None:
    assert classify(0, "APIStatusError", "", "Error code: 529 - busy") is Cause.VENDOR_CAPACITY
    assert classify(0, "", "", "429: slow down") is Cause.VENDOR_QUOTA
    assert classify(0, "", "", "4291 things") is Cause.UNKNOWN
    assert classify(400, "", "", "429: slow down") is Cause.BAD_REQUEST


def test_line_breaks_and_case_of_a_message_do_not_matter() -> None:
    assert classify(400, message="YOU have\n    reached your specified\tAPI usage limits.") is Cause.VENDOR_QUOTA


TEXT = st.one_of(
    st.none(),
    st.text(max_size=200),
    st.sampled_from([row[1] for row in ANSWERS] + [row[3] for row in ANSWERS]),
    st.text(alphabet="aA_.: 0quota", max_size=3_000),
)


@settings(max_examples=150, deadline=None)
@given(
    status=st.integers(),
    kind=TEXT,
    code=TEXT,
    message=TEXT,
    provider=TEXT,
    requests=st.none() | st.integers(),
    tokens=st.none() | st.integers(),
)
def test_any_input_gets_one_verdict(
    status: int,
    kind: str | None,
    code: str | None,
    message: str | None,
    provider: str | None,
    requests: int | None,
    tokens: int | None,
) -> None:
    verdict = classify(status, kind, code, message, provider, requests, tokens)
    assert isinstance(verdict, Cause)
    assert (verdict is Cause.NONE) == (0 < status < 400 and not kind)
    assert classify(status, kind, code, message, provider, requests, tokens) is verdict


def test_every_pattern_repeats_a_bounded_number_of_times() -> None:
    # Without `*` and `+`, and with few bounded repetitions, no message of 2,000 characters can make a rule slow.
    for rule in default_rules().rules:
        if rule.message is not None:
            bounds = [int(n) for n in re.findall(r"\{0,(\d+)\}", rule.message.pattern)]
            assert all(n <= 100 for n in bounds)
            for alternative in rule.message.pattern.split("|"):
                assert alternative.count("{") <= 1, rule.name
            assert rule.message.pattern == rule.message.pattern.lower(), rule.name


def test_document_says_of_every_cause_whether_retry_helps() -> None:
    text = (Path(__file__).parents[2] / "docs" / "causes.md").read_text(encoding="utf-8")
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert {row[0].strip("`"): row[-1].split(",")[0] == "yes" for row in cells} == {
        cause.label: RETRY_HELPS[cause] for cause in CAUSES
    }


def test_every_rule_names_its_source() -> None:
    assert all(len(rule.source) > 10 for rule in default_rules().rules)


RULE = "self_hosted_providers: []\nrules:\n  - {name: a, source: somewhere, %s}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (RULE % "cause: weather, status: [1]", "no cause 'weather'"),
        (RULE % "cause: none, status: [1]", "no cause 'none'"),
        (RULE % "cause: auth", "needs a status, a code or a message"),
        (RULE % "cause: auth, status: [4xx]", "'4xx' is no status"),
        (RULE % "cause: auth, status: ['500-400']", "'500-400' is no status"),
        (RULE % "cause: auth, message: ['a.*b']", "instead of * or +"),
        (RULE % "cause: auth, message: ['error 7']", "numbers of a message"),
        (RULE % "cause: auth, message: ['(a']", "cause rules: a:"),
        (RULE % "cause: auth, colour: [red]", "unknown field `colour`"),
        (RULE % "cause: auth, status: [1]" + "  - {name: a, source: b, cause: auth, status: [1]}\n", "two rules"),
        ("rules: [", "cause rules:"),
        ("[]", "cause rules:"),
    ],
)
def test_a_wrong_rule_file_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(BadSettings, match=re.escape(says)):
        load_rules(text)


def test_the_first_rule_that_fits_decides() -> None:
    two = "self_hosted_providers: []\nrules:\n{}{}"
    quota = "  - {name: q, source: s, cause: vendor_quota, status: [429]}\n"
    budget = "  - {name: b, source: s, cause: budget, code: [broke]}\n"
    for text, cause in ((two.format(quota, budget), Cause.VENDOR_QUOTA), (two.format(budget, quota), Cause.BUDGET)):
        rules = load_rules(text)
        rule = rules.first(gather(rules, 429, "broke", "", "", "", False))
        assert rule is not None
        assert rule.cause is cause
