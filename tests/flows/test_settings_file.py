"""Settings are checked before anything moves; every error says where and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.settings import Settings
from flows.settings_file import load, parse, secret, shown
from schemas.errors import BadSettings

GOOD = """
kafka:
  bootstrap_servers: ${BROKER}:9092
windows:
  length_s: 10
  grouping_sets: [[], [team], [team, model]]
detection:
  slos:
    - {name: chat, objective: 0.99, dims: {team: search}}
destinations:
  - {name: hook, type: webhook, url: "https://hooks.example/x", secret: "${HOOK_SECRET}"}
routes:
  - {destinations: [hook], kinds: [cost_spike], continue: true}
"""


def test_defaults_need_no_file() -> None:
    assert load(None) == Settings()


def test_variables_are_filled_in() -> None:
    settings = parse(GOOD, "t.yaml", {"BROKER": "kafka", "HOOK_SECRET": "whsec_x"})
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.destinations[0].secret == "whsec_x"
    assert settings.routes[0].continue_


def test_secrets_print_as_stars() -> None:
    text = str(shown(parse(GOOD, "t.yaml", {"BROKER": "kafka", "HOOK_SECRET": "whsec_x"})))
    assert "whsec_x" not in text
    assert "hooks.example" not in text
    assert "***" in text


def test_secrets_among_the_options_of_kafka_print_as_stars() -> None:
    text = """
kafka:
  options: {sasl.username: tidegauge, sasl.password: "${PW}", ssl.key.password: "${PW}", ssl.key.pem: "${PW}"}
"""
    shown_text = str(shown(parse(text, "t.yaml", {"PW": "hunter2"})))
    assert "hunter2" not in shown_text
    assert shown_text.count("***") >= 3
    assert "'sasl.username': 'tidegauge'" in shown_text


@pytest.mark.parametrize(
    ("text", "path", "line", "words"),
    [
        ("kafka:\n  bootstrap_server: x\n", "$.kafka", 2, "unknown field `bootstrap_server`"),
        ("windows:\n  shards: 8\n  length_s: ten\n", "$.windows.length_s", 3, "expected `int`"),
        ("windows:\n  length_s: 0\n", "$.windows.length_s", 2, ">= 1"),
        (
            "windows:\n  grouping_sets:\n    - []\n    - [tema]\n",
            "$.windows.grouping_sets[1]",
            4,
            "`tema` is no dimension",
        ),
        ("windows:\n  length_s: 7\n", "$.detection.interval_s", 1, "multiple of windows.length_s"),
        ("a: 1\na: 2\n", "$.a", 2, "stands twice"),
        ("kafka: [\n", "", 2, "YAML"),
        ("routes:\n  - destinations: [nobody]\n", "$.routes[0].destinations", 2, "no destination `nobody`"),
        ("incidents:\n  kinds:\n    cost_spikes: {}\n", "$.incidents.kinds.cost_spikes", 3, "unknown kind"),
        ("detection:\n  disabled: [magic]\n", "$.detection", 1, "unknown detector `magic`"),
        ("clickhouse:\n  password: hunter2\n", "$.clickhouse.password", 2, "must not stand in the file"),
        (
            "kafka:\n  options:\n    enable.auto.commit: true\n",
            "$.kafka.options.enable.auto.commit",
            3,
            "positions are part of the saved state",
        ),
        ("kafka:\n  options: {isolation.level: read_uncommitted}\n", "$.kafka.options.isolation.level", 2, "aborted"),
        ("kafka:\n  options: {no.such.option: 1}\n", "$.kafka.options.no.such.option", 2, "librdkafka does not take"),
        ("kafka:\n  options: {fetch.wait.max.ms: -5}\n", "$.kafka.options.fetch.wait.max.ms", 2, "outside allowed"),
        (
            "kafka:\n  options: {sasl.password: hunter2}\n",
            "$.kafka.options.sasl.password",
            2,
            "must not stand in the file; write ${VARIABLE} or use `sasl_password_file`",
        ),
        ("kafka:\n  options: {ssl.key.password: hunter2}\n", "$.kafka.options.ssl.key.password", 2, "must not stand"),
        ("kafka:\n  out_of_range: newest\n", "$.kafka.out_of_range", 2, "newest"),
        ("kafka:\n  requests_format: gpu\n", "$.kafka.requests_format", 2, "unknown format `gpu`"),
        ("pricing:\n  overlay: ${NOWHERE}\n", "$.pricing.overlay", 2, "no variable NOWHERE"),
        (
            "detection:\n  budgets:\n    - {name: b, usd: 5, dims: {region: eu}}\n",
            "$.detection.budgets[0].dims",
            3,
            "add them to windows.grouping_sets",
        ),
    ],
)
def test_an_error_names_path_and_line_and_what_to_do(text: str, path: str, line: int, words: str) -> None:
    with pytest.raises(BadSettings) as caught:
        parse(text, "tidegauge.yaml", {})
    message = str(caught.value)
    assert message.startswith("settings: ")
    assert words in message
    assert f"`{path}`" in message or not path
    assert f"(tidegauge.yaml, line {line})" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("text", "path", "line", "instead"),
    [
        ("kafka:\n  options:\n    sasl.password: MARK\n", "$.kafka.options.sasl.password", 3, "sasl_password_file"),
        ("kafka:\n  options:\n    ssl.key.password: MARK\n", "$.kafka.options.ssl.key.password", 3, "${VARIABLE}"),
        ("kafka:\n  options: {ssl.key.pem: MARK}\n", "$.kafka.options.ssl.key.pem", 2, "${VARIABLE}"),
        (
            "kafka:\n  options: {ssl.keystore.password: MARK}\n",
            "$.kafka.options.ssl.keystore.password",
            2,
            "${VARIABLE}",
        ),
        (
            "kafka:\n  options: {sasl.oauthbearer.client.secret: MARK}\n",
            "$.kafka.options.sasl.oauthbearer.client.secret",
            2,
            "${VARIABLE}",
        ),
        (
            "kafka:\n  options: {sasl.oauthbearer.config: MARK}\n",
            "$.kafka.options.sasl.oauthbearer.config",
            2,
            "${VARIABLE}",
        ),
        ("clickhouse:\n  password: 'MARK${HOME}'\n", "$.clickhouse.password", 2, "password_file"),
        ("clickhouse:\n\n  url: http://a:MARK@db:8123/x\n", "$.clickhouse.url", 3, "password_file"),
        ("incidents:\n  runbook_url: https://a:MARK@x/\n", "$.incidents.runbook_url", 2, "${VARIABLE}"),
        ("destinations:\n  - {name: a, type: pagerduty, secret: MARK}\n", "$.destinations[0].secret", 2, "secret_file"),
        (
            "destinations:\n  - {name: a, type: alertmanager, url: 'https://u:MARK@am'}\n",
            "$.destinations[0].url",
            2,
            "url_file",
        ),
        (
            "destinations:\n  - name: a\n    type: slack\n    url: https://hooks.slack.com/services/MARK\n",
            "$.destinations[0].url",
            4,
            "url_file",
        ),
    ],
)
def test_no_secret_stands_in_the_file(text: str, path: str, line: int, instead: str) -> None:
    with pytest.raises(BadSettings, match="must not stand in the file") as caught:
        parse(text.replace("MARK", "hunter2"), "tidegauge.yaml", {"HOME": "x"})
    message = str(caught.value)
    assert f"`{path}` (tidegauge.yaml, line {line})" in message
    assert instead in message
    assert "hunter2" not in message
    if "@" not in text:
        given = text.replace("MARK", "'${M}'").replace("''", "'").replace("${HOME}'", "")
        assert "hunter2" not in str(shown(parse(given, "t.yaml", {"M": "hunter2"})))


def test_an_address_without_a_secret_may_stand_in_the_file() -> None:
    text = "destinations: [{name: a, type: webhook, url: 'https://u@x/y'}, {name: b, type: slack, url: 'http://127.0.0.1:1/x'}]"
    assert parse(text, "t.yaml", {}).destinations[1].url == "http://127.0.0.1:1/x"


def test_a_missing_file_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="cannot be read"):
        load(str(tmp_path / "absent.yaml"))


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    assert secret(None, str(tmp_path / "key"), "x") == "s3cret"
    assert secret("given", None, "x") == "given"
    with pytest.raises(BadSettings, match="x_file"):
        secret(None, str(tmp_path / "absent"), "x")
