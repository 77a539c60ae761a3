"""`tidegauge outbox`: what waits for a receiver and what was given up, and trying that again."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from flows.settings_file import load
from schemas.errors import BadSettings
from sinks.outbox_review import OutboxReview


def outbox(
    action: Literal["list", "retry"],
    *,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    destination: str | None = None,
) -> int:
    """Show what waits for a receiver or was given up, or try again what was given up.

    Works beside a running process, which takes it up within a minute, and on a stopped one, which does at its start.

    Example: tidegauge outbox retry --config tidegauge.yaml --destination channel

    Parameters
    ----------
    action
        `list` prints one JSON object per revision; `retry` lets what was given up wait again.
    config
        Settings file, for its `state_dir`.
    destination
        This one only.
    """
    state_dir = Path(load(config).state_dir)
    files = sorted(state_dir.glob("process-*/outbox.sqlite"))
    if not files:
        raise BadSettings(
            f"outbox: there is none under `{state_dir}`. Check `state_dir`, or start `tidegauge run` once."
        )
    reviews = {f.parent.name: OutboxReview(f) for f in files}
    if action == "list":
        for process, review in reviews.items():
            for entry in review.entries(destination):
                _print({"process": process, **msgspec.to_builtins(entry)})
        return 0
    revived = 0
    for process, review in reviews.items():
        for name, n in review.retry(destination, time.time()).items():
            _print({"process": process, "destination": name, "revived": n})
            revived += n
    if not revived:
        print("nothing to do: nothing was given up" + (f" at {destination}" if destination else ""), file=sys.stderr)
    return 0


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
