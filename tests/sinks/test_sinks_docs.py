from __future__ import annotations

import doctest
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import sinks.secrets
import sinks.webhook
from sinks import SINKS, build_sink
from sinks.routing import Route, Router

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sinks.md").read_text()


def test_every_sink_has_its_section() -> None:
    assert set(SINKS) <= set(re.findall(r"^## (\w+)$", PAGE, re.MULTILINE))


def test_settings_example_builds(tmp_path: Path) -> None:
    example: dict[str, Any] = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    secrets = {
        "pagerduty": {"secret": "k" * 32},
        "slack": {"url": "https://hooks.example"},
        "webhook": {"secret": None},
    }
    built = {}
    for entry in example["destinations"]:
        given = {k: v for k, v in entry.items() if not k.endswith("_file")} | secrets.get(entry["type"], {})
        if "path" in given:
            given["path"] = str(tmp_path / "out.jsonl")
        built[entry["name"]] = build_sink(**given, kafka_options={"bootstrap.servers": "127.0.0.1:1"})
    routes = [Route(**{("continue_" if k == "continue" else k): v for k, v in r.items()}) for r in example["routes"]]
    assert Router(routes, list(built)).unrouted == ("bus", "record")
    for sink in built.values():
        sink.close()


@pytest.mark.parametrize("module", [sinks.secrets, sinks.webhook])
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted
    assert not done.failed


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_python_examples_run(code: str) -> None:
    exec(compile(code, "docs/sinks.md", "exec"), {})
