from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from detectors import DETECTORS

TEXT = (Path(__file__).parents[2] / "docs" / "detectors.md").read_text()


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_and_parameter_is_documented_with_its_default(name: str) -> None:
    heading = re.search(rf"^#+ .*\b{name} \[(\w+)\]$", TEXT, re.MULTILINE)
    assert heading, f"docs/detectors.md has no section on {name}"
    assert heading[1] == DETECTORS[name].cadence
    section = re.split(r"^##", TEXT[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0]
    for parameter in inspect.signature(DETECTORS[name]).parameters.values():
        default = parameter.default
        if isinstance(default, tuple):
            written = "[" + ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in default) + "]"
        elif isinstance(default, float):
            written = f"{default:.10g}"
        else:
            written = "null" if default is None else str(default)
        assert f"`{parameter.name}` {written}" in section, f"{name}: `{parameter.name}` {written}"


def test_the_example_runs() -> None:
    example = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert example
    shown: list[float] = []
    exec(example[1], {"print": shown.append})
    assert shown[0] > 0.6
