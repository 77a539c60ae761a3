"""The commands of `tidegauge`. Adding one: its file, its test, one line here, its section in docs/commands.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flows.commands.check import check

from flows.commands.migrate import migrate
from flows.commands.replay import replay
from flows.commands.run import run



COMMANDS: dict[str, Callable[..., Any]] = {

    "run": run,
    "replay": replay,

    "check": check,
    "migrate": migrate,

}
"""Every command by name."""
