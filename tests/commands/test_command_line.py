"""What holds for every command: help with an example, exit code 2 for bad usage, and no traceback for a person."""

from __future__ import annotations

import re

import pytest

from flows.__main__ import main
from flows.commands import COMMANDS
from tests.commands.command_line import tidegauge


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """A command within this process: as quick as it is to import."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_what_it_does_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert f"Example: tidegauge {name}" in re.sub(r"\s+", " ", out)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, name, "--help")
    rows = re.findall(r"^│ (\S.*?)│$", out.partition("Parameters")[2], re.MULTILINE)
    assert rows
    for row in rows:
        option, _, text = re.sub(r"\[\w+:.*?\]", "", row).strip().partition("  ")
        assert text.strip(), f"{name} {option} has no explanation"


def test_without_a_command_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    assert [name for name in COMMANDS if not re.search(rf"^│ {name} ", out, re.MULTILINE)] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "Unknown command"),
        (["check", "--confg", "x"], "--confg"),
        (["simulate", "--minutes", "many", "--out", "x"], "--minutes"),
        (["simulate", "--minutes", "5"], "--out"),
        (["run", "--workers"], "--workers"),
    ],
)
def test_bad_usage_is_exit_code_2_and_named(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in out + err
    assert "Traceback" not in out + err


def test_as_a_process_the_exit_codes_are_the_same() -> None:
    assert tidegauge("check", "--quiet").returncode == 0
    wrong = tidegauge("frobnicate")
    assert wrong.returncode == 2
    assert b"Traceback" not in wrong.stderr
