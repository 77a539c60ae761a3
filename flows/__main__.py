"""`tidegauge`, and the same as `python -m flows`: the command line."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence

import cyclopts

from flows.commands import COMMANDS
from flows.logs import set_up
from schemas.errors import BadSettings, TidegaugeError

OK, FAILED, BAD_USAGE = 0, 1, 2


def app() -> cyclopts.App:
    """The command-line application with all commands."""
    out = cyclopts.App(
        name="tidegauge",
        help="Streaming telemetry processor for AI operations: prices, attributes and watches LLM requests and GPUs.",
        version=_version,
    )
    for name, command in COMMANDS.items():
        out.command(command, name=name)
    return out


def _version() -> str:
    try:
        return importlib.metadata.version("tidegauge")
    except importlib.metadata.PackageNotFoundError:
        return "not installed (run from its folder)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code: 0 ok, 1 failed, 2 bad usage or settings."""
    set_up(sys.stderr)
    try:
        result = app()(
            list(arguments) if arguments is not None else None, exit_on_error=False, result_action="return_value"
        )
        sys.stdout.flush()  # a reader that has left shows here at the latest
    except cyclopts.CycloptsError:
        sys.exit(BAD_USAGE)
    except BadSettings as problem:
        print(problem, file=sys.stderr)
        sys.exit(BAD_USAGE)
    except TidegaugeError as problem:
        print(problem, file=sys.stderr)
        sys.exit(FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else OK)


if __name__ == "__main__":
    main()
