"""What exists is documented: every setting with its default, every command and option, format, kind and reason."""

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from flows.commands import COMMANDS
from flows.settings import Budget, Destination, KindPolicy, Route, Section, Settings, Silence, Slo
from schemas.errors import Reason
from schemas.formats import FORMATS
from schemas.incident import KINDS
from sinks import SINKS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

Rows = dict[str, list[str]]
"""Cells of a table by the name in the first one."""


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows(text: str) -> Rows:
    """All table rows whose first cell is one `name` in back quotes."""
    out: Rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and (name := re.match(r"`([^`]+)`", cells[0])):
            assert name[1] not in out, f"`{name[1]}` stands twice"
            out[name[1]] = cells[1:]
    return out


def sections(text: str) -> dict[str, str]:
    """Text below each second-level heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(section: str, name: str) -> str:
    """The part of a section about the entries of one list."""
    return section.split(f"Each entry of `{name}`", 1)[1].split("Each entry of", 1)[0]


def written(field: msgspec.structs.FieldInfo) -> str:
    """A default as the page writes it."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()  # type: ignore[misc]
    if value is None:
        return "`null`"
    if isinstance(value, float):
        return f"`{value:.10g}`"
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    return f"`{yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix('...' + chr(10)).strip()}`"


PAGE = sections(page("settings.md"))
TABLES: list[tuple[str, type[Section], str]] = [
    ("detection.slos", Slo, entries(PAGE["detection"], "detection.slos")),
    ("detection.budgets", Budget, entries(PAGE["detection"], "detection.budgets")),
    ("incidents.kinds", KindPolicy, entries(PAGE["incidents"], "incidents.kinds")),
    ("incidents.silences", Silence, entries(PAGE["incidents"], "incidents.silences")),
    ("destinations", Destination, PAGE["destinations"]),
    ("routes", Route, PAGE["routes"]),
]


def section_type(field: msgspec.structs.FieldInfo) -> type[Section] | None:
    """The section that a field of the settings holds, if it holds one."""
    for kind in (field.type, *typing.get_args(field.type)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


TOP = msgspec.structs.fields(Settings)
TABLES += [(f.name, kind, PAGE[f.name].split("Each entry of")[0]) for f in TOP if (kind := section_type(f))]


@pytest.mark.parametrize(("name", "kind", "text"), TABLES, ids=[name for name, _, _ in TABLES])
def test_every_setting_stands_in_its_section_with_its_default(name: str, kind: type[Section], text: str) -> None:
    found = rows(text)
    fields = msgspec.structs.fields(kind)
    assert list(found) == [f.encode_name for f in fields]
    for f in fields:
        if (name, f.name) != ("detection", "slos"):  # told in words: one objective
            assert found[f.encode_name][0] == written(f), f.encode_name
        assert found[f.encode_name][1], f"{f.encode_name} has no meaning"


def test_every_section_and_top_level_key_is_listed() -> None:
    found = rows(PAGE["Top level"])
    assert list(found) == [f.name for f in TOP]
    for f in TOP:
        if section_type(f) is None:
            assert found[f.name][0] == written(f)


def test_every_kind_of_list_entry_is_in_the_tables() -> None:
    """A new section cannot be forgotten: all are reached."""
    known = {kind for _, kind, _ in TABLES} | {Settings}
    assert set(Section.__subclasses__()) == known


def test_every_type_of_destination_is_named() -> None:
    assert [t for t in SINKS if f"`{t}`" not in rows(PAGE["destinations"])["type"][1]] == []


# ---------------------------------------------------------------- commands


def options(command: Any) -> dict[str, Any]:
    """Options of a command as they are typed, with their defaults; positional ones in capitals."""
    out: dict[str, Any] = {}
    for p in inspect.signature(command).parameters.values():
        positional = p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_OR_KEYWORD)
        out[p.name.upper() if positional else "--" + p.name.replace("_", "-")] = p.default
    return out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    section = sections(page("commands.md"))[name]
    assert f"tidegauge {name}" in section
    found = rows(section)
    assert sorted(found) == sorted(options(COMMANDS[name]))
    for option, default in options(COMMANDS[name]).items():
        if default not in (None, False, (), inspect.Parameter.empty):
            assert found[option][0].strip("`") == str(default), option
        assert found[option][1], f"{option} has no explanation"


def test_no_command_is_documented_that_does_not_exist() -> None:
    assert list(sections(page("commands.md"))) == list(COMMANDS)


# ---------------------------------------------------------------- closed lists


def test_every_format_has_a_row_and_a_section() -> None:
    text = page("formats.md")
    assert sorted(rows(text.split("## ")[0])) == sorted(FORMATS)
    headings = " ".join(sections(text))
    assert [name for name in FORMATS if f"`{name}`" not in headings] == []


def test_every_incident_kind_is_explained() -> None:
    assert sorted(rows(sections(page("incidents.md"))["Kinds"])) == sorted(KINDS)


def test_every_dead_letter_reason_is_explained() -> None:
    assert sorted(rows(sections(page("producers.md"))["Refused events"])) == sorted(Reason)
