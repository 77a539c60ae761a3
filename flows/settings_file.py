"""Reads `tidegauge.yaml` into `Settings`: every error names path, file and line, and says what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from detectors import DETECTORS
from flows import kafka_options
from flows.settings import Settings
from schemas.cause import CAUSES
from schemas.columns import DIMENSIONS
from schemas.errors import BadSettings
from schemas.formats import FORMATS
from schemas.incident import KINDS
from sinks.http import is_loopback

_SECRETS = frozenset({"password", "secret"})
"""Keys of ours whose values never stand in the file."""

_LOGIN = re.compile(r"://[^/?#@\s]*:[^/?#\s]*@")
"""An address with a password in it."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_AT = re.compile(r" - at `(?P<path>[^`]+)`$")


def load(path: str | None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read and check a settings file.

    Parameters
    ----------
    path
        YAML file; None gives the defaults.
    environment
        Where `${VAR}` comes from; the process's environment by default.

    Raises
    ------
    BadSettings
        Unknown key, wrong type, contradiction, missing variable or file.
    """
    if path is None:
        return Settings()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadSettings(f"settings: {path} cannot be read ({problem}). Name an existing YAML file.") from problem
    return parse(text, path, os.environ if environment is None else environment)


def parse(text: str, name: str, environment: Mapping[str, str]) -> Settings:
    """Check the text of a settings file; `name` is used in errors."""
    reader = _Reader(name, environment)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as problem:
        line = getattr(getattr(problem, "problem_mark", None), "line", 0) + 1
        why = getattr(problem, "problem", None) or "no YAML"
        raise BadSettings(f"settings: {why} ({name}, line {line}). Mend the YAML syntax.") from problem
    raw = reader.value(node, "$") if node is not None else {}
    reader.slack_addresses(node)
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as problem:
        raise reader.error(str(problem)) from problem
    for path, message in problems(settings):
        raise reader.error(f"{message} - at `{path}`")
    return settings


class _Reader:
    """Turns YAML nodes into plain values and remembers the line of each path."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = environment
        self.lines: dict[str, int] = {"$": 1}

    def error(self, message: str) -> BadSettings:
        found = _AT.search(message)
        path = found["path"] if found else "$"
        line_path = path
        unknown = re.search(r"unknown field `([^`]+)`", message)
        if unknown:
            line_path = f"{path}.{unknown[1]}"
            message = message.replace("Object contains", "there is an") + ". Remove it, or look at docs/settings.md"
        while line_path not in self.lines and line_path != "$":
            line_path = re.sub(r"(\.[^.\[]+|\[[^\]]*\])$", "", line_path) or "$"
        where = f"({self.name}, line {self.lines.get(line_path, 1)})"
        message = message[:1].lower() + message[1:]
        return BadSettings(f"settings: {message if found else f'{message} - at `$`'} {where}")

    def value(self, node: yaml.Node, path: str) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            out: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                inner = f"{path}.{key}"
                self.lines[inner] = key_node.start_mark.line + 1
                if key in out:
                    raise self.error(f"key `{key}` stands twice; keep one - at `{inner}`")
                out[key] = self._leaf(key, value_node, inner)
            return out
        if isinstance(node, yaml.SequenceNode):
            out_list = []
            for i, item in enumerate(node.value):
                self.lines[f"{path}[{i}]"] = item.start_mark.line + 1
                self.lines.setdefault(f"{path}[...]", item.start_mark.line + 1)
                out_list.append(self.value(item, f"{path}[{i}]"))
            return out_list
        return self._scalar(node, path)

    def _leaf(self, key: str, node: yaml.Node, path: str) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.value and node.tag != "tag:yaml.org,2002:null":
            if _is_secret(key) and _VARIABLE.fullmatch(node.value) is None:
                file = "sasl_password_file" if key == "sasl.password" else f"{key}_file"
                other = "" if "." in key and key != "sasl.password" else f" or use `{file}`"
                raise self.error(f"a secret must not stand in the file; write ${{VARIABLE}}{other} - at `{path}`")
            if _LOGIN.search(_VARIABLE.sub("", node.value)):
                raise self.error(
                    "an address with a password must not stand in the file; write the whole address as ${VARIABLE}, "
                    f"or use `{'password_file' if path.startswith('$.clickhouse') else f'{key}_file'}` - at `{path}`"
                )
        return self.value(node, path)

    def slack_addresses(self, node: yaml.Node | None) -> None:
        """Refuse the address of a Slack webhook in the file: whoever has it can post."""
        for i, destination in enumerate(_items(_entry(node, "destinations"))):
            kind, url = _entry(destination, "type"), _entry(destination, "url")
            if not (isinstance(kind, yaml.ScalarNode) and kind.value == "slack" and isinstance(url, yaml.ScalarNode)):
                continue
            if _VARIABLE.search(url.value) is None and not is_loopback(_host(url.value)):
                raise self.error(
                    "the address of a Slack webhook is a secret and must not stand in the file; write ${VARIABLE} or "
                    f"use `url_file` - at `$.destinations[{i}].url`"
                )

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        text = node.value
        if isinstance(text, str) and _VARIABLE.search(text):

            def known(match: re.Match[str]) -> str:
                name = match[1]
                if name not in self.environment:
                    raise self.error(f"the environment has no variable {name}; set it before the start - at `{path}`")
                return self.environment[name]

            return _VARIABLE.sub(known, text)
        return yaml.SafeLoader("").construct_object(node)


def _entry(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for k, value in node.value if k.value == key), None)


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def problems(s: Settings) -> list[tuple[str, str]]:
    """Contradictions that types cannot express: (path, what and what to do)."""
    out: list[tuple[str, str]] = []

    def need(ok: bool, path: str, message: str) -> None:
        if not ok:
            out.append((path, message))

    for i, group in enumerate(s.windows.grouping_sets):
        for dim in group:
            need(
                dim in DIMENSIONS,
                f"$.windows.grouping_sets[{i}]",
                f"`{dim}` is no dimension of a request; choose from {', '.join(DIMENSIONS)}",
            )
        need(len(set(group)) == len(group), f"$.windows.grouping_sets[{i}]", "a dimension stands twice; keep one")
    sets = [frozenset(g) for g in s.windows.grouping_sets]
    need(len(set(sets)) == len(sets), "$.windows.grouping_sets", "the same set stands twice; keep one")
    for name, stream in (("requests", "requests"), ("gpus", "gpus")):
        value = getattr(s.kafka, f"{name}_format")
        fitting = sorted(f for f, cls in FORMATS.items() if cls.stream == stream)
        need(value in fitting, f"$.kafka.{name}_format", f"unknown format `{value}`; choose from {', '.join(fitting)}")
    out.extend(kafka_options.problems(s.kafka))
    need(
        s.detection.interval_s % s.windows.length_s == 0,
        "$.detection.interval_s",
        f"must be a multiple of windows.length_s ({s.windows.length_s})",
    )
    for name in [*s.detection.disabled, *s.detection.parameters]:
        need(name in DETECTORS, "$.detection", f"unknown detector `{name}`; choose from {', '.join(sorted(DETECTORS))}")
    for i, slo in enumerate(s.detection.slos):
        need(frozenset(slo.dims) in sets, f"$.detection.slos[{i}].dims", _not_watched(slo.dims))
        for cause in slo.exclude_causes:
            labels = [c.label for c in CAUSES]
            need(
                cause in labels,
                f"$.detection.slos[{i}].exclude_causes",
                f"unknown cause `{cause}`; choose from {labels}",
            )
    for i, budget in enumerate(s.detection.budgets):
        need(frozenset(budget.dims) in sets, f"$.detection.budgets[{i}].dims", _not_watched(budget.dims))
    for kind in s.incidents.kinds:
        need(kind in KINDS, f"$.incidents.kinds.{kind}", f"unknown kind `{kind}`; choose from {', '.join(KINDS)}")
    names = [d.name for d in s.destinations]
    need(len(set(names)) == len(names), "$.destinations", "two destinations have the same name; rename one")
    for i, route in enumerate(s.routes):
        for name in route.destinations:
            need(name in names, f"$.routes[{i}].destinations", f"there is no destination `{name}`; there are {names}")
        for kind in route.kinds:
            need(kind in KINDS, f"$.routes[{i}].kinds", f"unknown kind `{kind}`; choose from {', '.join(KINDS)}")
    return out


def _not_watched(dims: Mapping[str, str]) -> str:
    return f"no series has exactly the dimensions {sorted(dims)}; add them to windows.grouping_sets"


def shown(settings: Settings) -> dict[str, Any]:
    """Settings as plain values, secrets as `***`."""
    plain = msgspec.to_builtins(settings)
    masked = _masked(plain)
    assert isinstance(masked, dict)
    return masked


def _masked(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _masked(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_masked(v, key) for v in value]
    if not isinstance(value, str) or value.startswith("chdb://"):
        return value
    # A destination's address is a secret: a Slack webhook needs no other.
    return "***" if key == "url" or _is_secret(key) or _LOGIN.search(value) else value


def _is_secret(key: str) -> bool:
    return key in _SECRETS or ("." in key and kafka_options.is_secret(key))


def secret(value: str | None, file: str | None, what: str) -> str | None:
    """A secret from its setting or its file.

    Raises
    ------
    BadSettings
        The file cannot be read.
    """
    if file is None:
        return value
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as problem:
        raise BadSettings(f"settings: {what}_file {file} cannot be read ({problem.strerror}).") from problem
