"""`tidegauge check`: what is wrong, where, with exit code 2, and never a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.settings import Settings
from flows.settings_file import shown
from tests.commands.command_line import succeeded
from tests.commands.test_command_line import run

OVERLAY = """
contracts:
  - {provider: openai, model: gpt-4o, input_usd_per_mtok: "2.00", valid_from: 2026-01-01}
"""


def test_the_defaults_are_printed_in_full() -> None:
    printed = yaml.safe_load(succeeded("check"))
    assert printed == shown(Settings())


def test_what_is_printed_can_be_given_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("windows: {length_s: 20}\nkafka: {options: {security.protocol: SASL_SSL}}\n")
    _, first, _ = run(capsys, "check", "--config", str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text(first)
    code, second, _ = run(capsys, "check", "-c", str(tmp_path / "b.yaml"))
    assert code == 0
    assert yaml.safe_load(second) == yaml.safe_load(first)
    assert yaml.safe_load(second)["windows"]["length_s"] == 20


def test_quiet_prints_nothing_when_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "check", "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("windws: {}\n", 1, "unknown field `windws`"),
        ("\nwindows:\n  length_s: fast\n", 3, "expected `int`, got `str` - at `$.windows.length_s`"),
        ("windows:\n  length_s: 0\n", 2, "`$.windows.length_s`"),
        ("detection:\n  interval_s: 25\n", 2, "multiple of windows.length_s"),
        ("windows:\n  grouping_sets: [[], [tem]]\n", 2, "`tem` is no dimension"),
        ("windows:\n  shards: 8\n  shards: 9\n", 3, "stands twice"),
        ("kafka: {requests_format: azure}\n", 1, "unknown format `azure`"),
        ("detection: {disabled: [cost_spikes]}\n", 1, "unknown detector `cost_spikes`"),
        ("incidents:\n  kinds: {cost: {open_score: 0.4}}\n", 2, "unknown kind `cost`"),
        ("routes: [{destinations: [nobody]}]\n", 1, "no destination `nobody`"),
        ("clickhouse: {password: hunter2}\n", 1, "a secret must not stand in the file"),
        ("pricing: {overlay: '${NO_SUCH_VARIABLE}'}\n", 1, "no variable NO_SUCH_VARIABLE"),
        ("kafka: [\n", 2, "YAML"),
    ],
)
def test_each_class_of_error_is_code_2_with_path_and_line(
    text: str, line: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tidegauge.yaml"
    file.write_text(text)
    code, out, err = run(capsys, "check", "--config", str(file))
    assert (code, out) == (2, "")
    assert err.startswith("settings: ")
    assert words in err
    assert f"({file}, line {line})" in err
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("detection: {parameters: {cost_spike: {min_ration: 3}}}\n", "`$.detection.parameters.cost_spike`"),
        ("incidents: {silences: [{matchers: {}, ends_at: tomorrow}]}\n", "`$.incidents.silences`"),
        ("incidents: {silences: [{matchers: {}, ends_at: '2026-01-01T00:00:00'}]}\n", "no time zone"),
        ("pricing: {overlay: /no/such/prices.yaml}\n", "/no/such/prices.yaml"),
    ],
)
def test_what_only_the_parts_know_is_checked_too(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tidegauge.yaml").write_text(text)
    code, out, err = run(capsys, "check", "--config", str(tmp_path / "tidegauge.yaml"))
    assert (code, out) == (2, "")
    assert words in err


def test_a_missing_file_is_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "check", "--config", str(tmp_path / "absent.yaml"))
    assert code == 2
    assert "absent.yaml cannot be read" in err


def test_secrets_are_never_printed(tmp_path: Path) -> None:
    (tmp_path / "tidegauge.yaml").write_text(
        "kafka:\n  options: {sasl.username: u, sasl.password: '${KAFKA_SECRET}'}\n"
        "clickhouse: {url: 'https://user@db.example:8443/t', password: '${DB_SECRET}'}\n"
        "destinations:\n  - {name: s, type: slack, url: '${SLACK_SECRET}'}\n"
        "  - {name: p, type: pagerduty, secret: '${PAGER_SECRET}'}\n"
    )
    secrets = {
        "KAFKA_SECRET": "k4fka-hidden", "DB_SECRET": "db-hidden",
        "SLACK_SECRET": "https://hooks.example/T0/hidden", "PAGER_SECRET": "pager-hidden",
    }  # fmt: skip
    out = succeeded("check", "--config", tmp_path / "tidegauge.yaml", **secrets).decode()
    assert "hidden" not in out
    assert out.count("'***'") + out.count('"***"') >= 4
