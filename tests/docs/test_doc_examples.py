"""What the documentation shows works: links, settings, commands, events, and the first producer."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import msgspec
import pytest
import yaml
from confluent_kafka import Consumer

from flows.assembly import Parts
from flows.commands import COMMANDS
from flows.demo.broker import EmbeddedBroker
from flows.pricing import PriceBook
from flows.settings import Settings
from flows.settings_file import load, parse
from schemas.formats import get_format
from schemas.request_event import RequestEvent
from schemas.timestamps import to_ns

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("grafana/**/*.md")])


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Fenced blocks of all pages in one of the languages, with the page they stand in."""
    pattern = re.compile(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(str(p.relative_to(ROOT)), text) for p in PAGES for text in pattern.findall(p.read_text(encoding="utf-8"))]


def slugs(text: str) -> set[str]:
    """Anchors that a page's headings get on GitHub."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in slugs(target.read_text(encoding="utf-8"))):
            missing.append(link)
    assert sorted(set(missing)) == []


@pytest.mark.parametrize(("page", "text"), blocks("yaml", "yml"))
def test_yaml_examples_load(page: str, text: str, tmp_path: Path) -> None:
    keys = set(yaml.safe_load(text))
    if keys <= set(Settings.__struct_fields__):
        settings = parse(text, page, {"SECRET": "x"})
        Parts(settings, PriceBook.load(None))
    elif keys <= {"prices", "discounts", "tiers", "aliases", "gpus", "defaults"}:
        (tmp_path / "prices.yaml").write_text(text, encoding="utf-8")
        assert PriceBook.load(str(tmp_path / "prices.yaml")).version != PriceBook.load(None).version
    else:
        pytest.fail(f"{page}: neither settings nor prices: {sorted(keys)}")


def test_the_example_settings_load_and_change_something() -> None:
    settings = load(str(ROOT / "tidegauge.example.yaml"), {})
    Parts(settings, PriceBook.load(settings.pricing.overlay))
    assert settings != Settings()
    given = yaml.safe_load((ROOT / "tidegauge.example.yaml").read_text(encoding="utf-8"))
    assert sorted(given) == sorted(set(Settings.__struct_fields__) - {"epoch_s"})  # every section is shown


def typed() -> list[tuple[str, str]]:
    """Every `tidegauge` command line that a page shows."""
    return [
        (page, line[line.index("tidegauge ") :])
        for page, text in blocks("sh", "shell", "bash", "console")
        for line in text.splitlines()
        if re.search(r"(^|[ /])tidegauge [a-z]+( |$)", line.split("#")[0])
    ]


def test_command_lines_are_found() -> None:
    assert len(typed()) >= 10


@pytest.mark.parametrize(("page", "line"), typed())
def test_shown_command_lines_have_commands_and_options_that_exist(page: str, line: str) -> None:
    words = shlex.split(line.split(" | ")[0], comments=True)
    assert words[1] in COMMANDS, page
    known = {"--" + name.replace("_", "-") for name in inspect.signature(COMMANDS[words[1]]).parameters}
    used = {word for word in words[2:] if word.startswith("--")}
    assert used <= known | {"--help"}


def test_shown_events_decode() -> None:
    shown = [
        line
        for page, text in blocks("sh", "json", "jsonl")
        for line in re.findall(r"\{\"at\":.*?\}", text)
        if page in ("README.md", "docs/producers.md")
    ]
    assert shown
    for line in shown:
        (event,) = get_format("request").decode(line.encode())
        assert isinstance(event, RequestEvent)
        assert to_ns(event.at) > 0


@pytest.mark.parametrize(
    ("page", "code"), [(p, c) for p, c in blocks("python") if p in ("README.md", "docs/producers.md")]
)
def test_the_first_producer_reaches_a_broker_and_its_event_decodes(page: str, code: str) -> None:
    broker = EmbeddedBroker()
    try:
        broker.create("ai.requests")
        assert "localhost:9092" in code
        exec(compile(code.replace("localhost:9092", broker.address), page, "exec"), {})
        consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "t", "auto.offset.reset": "earliest"})
        consumer.subscribe(["ai.requests"])
        message = next((m for m in (consumer.poll(1.0) for _ in range(30)) if m is not None and not m.error()), None)
        consumer.close()
        assert message is not None
        payload = message.value()
        assert payload is not None
        (event,) = get_format("request").decode(payload)
        assert isinstance(event, RequestEvent)
        assert event.status == 200
        assert event.input_tokens
        # no field is misspelt: unknown ones would be ignored
        assert set(msgspec.json.decode(payload)) <= set(RequestEvent.__struct_fields__)
    finally:
        broker.close()
