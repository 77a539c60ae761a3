"""`tidegauge replay`: files through the same dataflow as production."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from flows.outputs import Outputs
from flows.runtime import Runtime, execute, incident_lines
from flows.settings import ClickHouse
from flows.settings_file import load
from flows.sources.files import FileSource, ReplayFile
from flows.steps import Priced, PricedGpus
from flows.window_lines import lines
from schemas.columns import TOO_LATE
from schemas.dead_letter import DeadLetter
from schemas.errors import BadSettings, TidegaugeError
from schemas.formats import FORMATS, get_format
from schemas.incident import Incident

DELIVERY_S = 60.0
"""How long the end of a replay waits for the database, and for the destinations."""

REFUSED_S = 5.0
"""How long it waits where the database answers and refuses."""

Out = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
"""A file to write; `-` is standard output."""


def replay(
    *files: Annotated[str, Parameter(allow_leading_hyphen=True)],
    format: Annotated[str | None, Parameter(name=["--format", "-f"])] = None,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    speed: str = "max",
    clickhouse: str | None = None,
    incidents: Out = None,
    windows: Out = None,
    notify: Annotated[bool, Parameter(negative=())] = False,
    workers: int = 1,
    block_messages: int = 10_000,
) -> int:
    """Send files through the dataflow: decode, price, aggregate, detect.

    Prints one JSON line with what was counted, to standard error where `-` takes standard output. No destination is
    called unless asked for. State is kept for the run only: every replay starts cold.

    Example: tidegauge replay sim/requests.jsonl.gz sim/gpus.jsonl.gz --incidents found.jsonl

    Parameters
    ----------
    files
        Files, `.gz` too; `-` is standard input; FORMAT=FILE chooses the format of one file.
    format
        Format of files that do not name their own; without it, files whose name starts with `gpus` are read as
        `gpu` and all others as `request`.
    config
        Settings file.
    speed
        `max`, or how many times faster than real time.
    clickhouse
        Database to write to (`chdb://PATH` or `http://...`); none is written to without it.
    incidents
        JSON-lines file for incidents; `-` is standard output.
    windows
        JSON-lines file for closed windows; `-` is standard output.
    notify
        Call the destinations in the settings.
    workers
        Worker threads.
    block_messages
        Messages per block.
    """
    if not files:
        raise BadSettings("replay: name at least one file, for instance `tidegauge replay requests.jsonl.gz`.")
    for given in (*files, incidents, windows):
        if given is not None and given.startswith("-") and given != "-":
            raise BadSettings(f"replay: there is no option {given}, or its value is missing. See replay --help.")
    if files.count("-") > 1:
        raise BadSettings("replay: standard input can be read once; name `-` once.")
    if workers < 1 or block_messages < 1:
        raise BadSettings("replay: --workers and --block-messages are whole numbers from 1.")
    rate = _speed(speed)
    settings = load(config)
    chosen = [_file(text, format, number) for number, text in enumerate(files)]
    database = None
    if clickhouse is not None:
        database = msgspec.structs.replace(settings.clickhouse or ClickHouse(), url=clickhouse)
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegauge-replay-"))
        settings = msgspec.structs.replace(settings, clickhouse=database, state_dir=scratch)
        runtime = stack.enter_context(Runtime(settings, notify=notify, drain_s=0.0))
        sources: dict[str, FileSource | None] = {}
        for stream in ("requests", "gpus"):
            mine = [f for f in chosen if f.format.stream == stream]
            sources[stream] = (
                FileSource(mine, runtime.parts.partition, block_messages=block_messages, speed=rate) if mine else None
            )
        counts = _Counts()
        outputs = runtime.outputs()
        counts.listen(outputs)
        if incidents is not None:
            outputs.incidents.append(incident_lines(_open(stack, incidents).write))
        if windows is not None:
            target = _open(stack, windows)
            outputs.ordered_windows = lambda closed: [target.write(x) for w in closed for x in lines(w)]
        _execute(runtime, sources, outputs, workers)
        lost = _undelivered(runtime)
        summary = msgspec.json.encode(counts.summary()).decode()
        print(summary, file=sys.stderr if "-" in (incidents, windows) else sys.stdout, flush=True)
        if lost:
            again = "Mend that and replay again: what has arrived is replaced, not doubled."
            raise TidegaugeError(f"replay: {'; '.join(lost)}. {again}")
    return 0


def _execute(runtime: Runtime, sources: dict[str, FileSource | None], outputs: Outputs, workers: int) -> None:
    try:
        execute(runtime, sources["requests"], sources["gpus"], outputs, workers=workers)
    except RuntimeError as problem:  # the engine wraps what our own parts raise
        inner: BaseException | None = problem
        while inner is not None and not isinstance(inner, TidegaugeError | BrokenPipeError | KeyboardInterrupt):
            inner = inner.__cause__
        raise (inner or problem) from problem


def _undelivered(runtime: Runtime) -> list[str]:
    """Wait for receivers and database. What they do not have then is gone with the scratch folder: say so."""
    out: list[str] = []
    if runtime.notifier is not None:
        runtime.notifier.drain(DELIVERY_S)
        for name, state in sorted(runtime.notifier.status().items()):
            if lost := state["waiting"] + state["dead_kept"]:
                out.append(f"{lost} incident revisions did not reach {name} ({state['last_error']})")
    if runtime.writer is not None:
        runtime.writer.checkpoint()
        waited = 0.0
        while not runtime.writer.drain(1.0):
            waited += 1.0
            status = runtime.writer.status()
            if waited >= DELIVERY_S or (waited >= REFUSED_S and status["refused"]):
                out.append(f"{status['queued_rows']} rows did not reach the database ({status['last_error']})")
                break
    return out


def _file(text: str, fallback: str | None, number: int) -> ReplayFile:
    name, sign, path = text.partition("=")
    if sign and name in FORMATS:
        return ReplayFile(path, get_format(name), number)
    guess = "gpu" if Path(text).name.startswith("gpus") else "request"
    return ReplayFile(text, get_format(fallback or guess), number)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise BadSettings(f"replay: --speed is `max` or a number above 0, not `{text}`.")
    return value


def _open(stack: ExitStack, path: str) -> Any:
    if path == "-":
        return sys.stdout.buffer
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return stack.enter_context(target.open("wb"))


class _Counts:
    """What went through, for the closing line."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = dict.fromkeys(
            ("requests", "gpu_samples", "too_late", "input_tokens", "output_tokens"), 0
        )
        self.dead: dict[str, int] = {}
        self.incidents: dict[str, int] = {}

    def listen(self, outputs: Outputs) -> None:
        outputs.requests.append(self._requests)
        outputs.gpus.append(self._gpus)
        outputs.dead.append(self._dead)
        outputs.incidents.append(self._incidents)

    def summary(self) -> dict[str, Any]:
        return {
            **self.numbers,
            "dead_letters": dict(sorted(self.dead.items())),
            "incidents": dict(sorted(self.incidents.items())),
        }

    def _requests(self, values: Sequence[Priced]) -> None:
        for p in values:
            if p.item.batch is None:
                continue
            c = p.item.batch.columns
            self.numbers["requests"] += len(c)
            self.numbers["too_late"] += int((c.lateness == TOO_LATE).sum())
            for name in ("input_tokens", "output_tokens"):
                self.numbers[name] += int(getattr(c, name).clip(0).sum())

    def _gpus(self, values: Sequence[PricedGpus]) -> None:
        self.numbers["gpu_samples"] += sum(len(p.columns) for p in values if p.columns is not None)

    def _dead(self, values: Sequence[DeadLetter]) -> None:
        for letter in values:
            self.dead[letter.reason.value] = self.dead.get(letter.reason.value, 0) + 1

    def _incidents(self, values: Sequence[Incident]) -> None:
        for incident in values:
            if incident.state == "open":
                self.incidents[incident.kind] = self.incidents.get(incident.kind, 0) + 1
