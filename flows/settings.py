"""All settings, as one frozen object. `flows.settings_file` alone reads YAML into it.

Every field has a default that works on one machine; times end in `_s`, money in `_usd`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from schemas.incident import Severity

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Whole = Annotated[int, Meta(ge=1)]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections: unknown keys are errors."""


class Kafka(Section, frozen=True):
    """Where events come from and where incidents and dead letters go."""

    bootstrap_servers: str = "localhost:9092"
    requests_topic: str = "ai.requests"
    gpus_topic: str = "ai.gpus"
    incidents_topic: str = "ai.incidents"
    dead_letters_topic: str = "ai.dead-letters"
    requests_format: str = "request"
    gpus_format: str = "gpu"
    start: Literal["earliest", "latest"] = "earliest"
    """Where a topic is read from when none of its partitions has a saved position; a partition that is added later is
    always read from its beginning."""
    out_of_range: Literal["earliest", "latest", "stop"] = "earliest"
    """Where to go on when the saved position is not in the topic any more: retention has passed it, or the topic was
    made anew."""
    topic_check_s: Positive = 5.0
    """How often to look for new partitions, topics made anew, and a broker that does not answer."""
    max_message_bytes: Whole = 1_048_576
    block_messages: Whole = 10_000
    options: dict[str, str | int | bool] = {}
    """Further librdkafka options (TLS, SASL, ...). Secrets: `${VAR}` or `sasl_password_file`."""
    sasl_password_file: str | None = None


class Windows(Section, frozen=True):
    """Event-time windows and series."""

    length_s: Whole = 10
    disorder_s: NotNegative = 5.0
    """How far behind its partition's newest event an event may come and still be on time."""
    allowed_lateness_s: NotNegative = 60.0
    """How long a closed window still takes late events, to be written again under version 2."""
    idle_timeout_s: Positive = 30.0
    """A partition that is silent for so long no longer holds windows open."""
    max_clock_ahead_s: Positive = 300.0
    """How far `at` may lie ahead of the message's Kafka timestamp."""
    shards: Annotated[int, Meta(ge=1, le=1024)] = 8
    grouping_sets: list[list[str]] = field(
        default_factory=lambda: [
            [],
            ["team"],
            ["provider", "model"],
            ["team", "model"],
            ["team", "api_key_id"],
            ["team", "product", "provider", "model", "prompt_version"],
        ]
    )
    max_values_per_dimension: Whole = 1_000
    """The most active values of a dimension keep their name; the rest reads `other`."""
    max_series: Whole = 50_000
    evict_after_s: Positive = 7_200.0
    """A series without requests for so long is forgotten."""


class Pricing(Section, frozen=True):
    """Prices beside genai-prices' own data."""

    overlay: str | None = None
    """YAML file with contract prices, discounts, tier multipliers and GPU prices (docs/prices.md)."""
    cache_ttl_s: Positive = 300.0
    """How long a provider keeps a prompt prefix cached, for missed-cache savings."""


class Slo(Section, frozen=True):
    """A service level objective, watched by burn rate."""

    name: str
    objective: Annotated[float, Meta(gt=0, lt=1)] = 0.99
    dims: dict[str, str] = {}
    """The series it applies to; must be one of the grouping sets. `*` watches every value."""
    exclude_causes: list[str] = field(default_factory=lambda: ["bad_request"])


class Budget(Section, frozen=True):
    """A budget, watched by burn rate."""

    name: str
    usd: Positive
    period_s: Positive = 2_592_000.0
    dims: dict[str, str] = {}


class Detection(Section, frozen=True):
    """Which detectors run, with which parameters."""

    interval_s: Whole = 60
    disabled: list[str] = []
    parameters: dict[str, dict[str, Any]] = {}
    """By detector name: keyword parameters (docs/detectors.md)."""
    slos: list[Slo] = field(default_factory=lambda: [Slo(name="success", objective=0.95)])
    budgets: list[Budget] = []


class KindPolicy(Section, frozen=True):
    """When findings of one kind become an incident. `None` keeps the kind's default (docs/incidents.md)."""

    open_score: Ratio | None = None
    close_score: Ratio | None = None
    open_after: Whole | None = None
    """Rows at or above `open_score`, out of the last `open_of`, that open an incident."""
    open_of: Whole | None = None
    close_after: Whole | None = None
    """Rows below `close_score` in succession that resolve it."""
    min_effect: NotNegative | None = None
    min_impact_usd_per_hour: NotNegative | None = None
    min_volume: NotNegative | None = None
    severity: Severity | None = None
    """Fixed severity; otherwise it follows from impact and size."""


class Silence(Section, frozen=True):
    """Incidents that are recorded but not sent."""

    matchers: dict[str, str]
    """`kind` and dimensions with values; `*` at the end matches any rest."""
    starts_at: str | None = None
    ends_at: str | None = None
    reason: str = ""


class Incidents(Section, frozen=True):
    """How judgements become incidents."""

    cold_start_s: NotNegative = 3_600.0
    """A series younger than this opens no incident of a learned kind."""
    kinds: dict[str, KindPolicy] = {}
    reminder_s: Positive = 14_400.0
    max_open: Whole = 500
    silences: list[Silence] = []
    dashboard_url: str = ""
    """Base URL of Grafana, for links; empty leaves them out."""
    runbook_url: str = ""


class ClickHouse(Section, frozen=True):
    """The database. `chdb://PATH` is the embedded engine, `http(s)://USER@HOST:PORT/DATABASE` a server."""

    url: str = "chdb://.tidegauge/clickhouse"
    password_file: str | None = None
    password: str | None = None
    """Only as `${VAR}`."""
    store_requests: bool = True
    ttl_days_raw: Whole = 30
    ttl_days_windows: Whole = 400
    spool_bytes: Whole = 2_000_000_000
    """Disk that may be used for rows that wait for the database; beyond it the flow waits."""
    verify_tls: bool = True


class Destination(Section, frozen=True):
    """One receiver of incidents."""

    name: str
    type: str
    """`slack`, `pagerduty`, `alertmanager`, `webhook`, `kafka`, `jsonl` (docs/sinks.md)."""
    url: str | None = None
    url_file: str | None = None
    secret: str | None = None
    secret_file: str | None = None
    """PagerDuty routing key, webhook signing secret."""
    path: str | None = None
    topic: str | None = None
    rate_per_s: Positive | None = None


class Route(Section, frozen=True):
    """Which incidents go to which destinations. The first route that matches decides unless `continue_` is set."""

    destinations: list[str]
    kinds: list[str] = []
    teams: list[str] = []
    min_severity: Severity = "info"
    continue_: bool = field(default=False, name="continue")


class Metrics(Section, frozen=True):
    """Own metrics and health."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9464


class Settings(Section, frozen=True):
    """The whole of `tidegauge.yaml`."""

    state_dir: str = ".tidegauge/state"
    """Saved positions, detector state, outbox and spool."""
    epoch_s: Positive = 1.0
    """How often state is saved; also how soon back pressure acts."""
    kafka: Kafka = Kafka()
    windows: Windows = field(default_factory=Windows)
    pricing: Pricing = Pricing()
    detection: Detection = field(default_factory=Detection)
    incidents: Incidents = Incidents()
    clickhouse: ClickHouse | None = ClickHouse()
    destinations: list[Destination] = []
    routes: list[Route] = []
    metrics: Metrics = Metrics()
