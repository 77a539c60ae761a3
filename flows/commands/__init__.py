"""The commands of `tidegauge`. Adding one: its file, its test, one line here, its section in docs/commands.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flows.commands.check import check
from flows.commands.dead_letters import dead_letters
from flows.commands.demo import demo
from flows.commands.migrate import migrate
from flows.commands.outbox import outbox
from flows.commands.replay import replay
from flows.commands.run import run
from flows.commands.schema import schema
from flows.commands.simulate import simulate

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "run": run,
    "replay": replay,
    "simulate": simulate,
    "check": check,
    "migrate": migrate,
    "outbox": outbox,
    "schema": schema,
    "dead-letters": dead_letters,
}
"""Every command by name."""
