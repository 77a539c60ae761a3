from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STAGES = [s for s in re.split(r"^FROM ", TEXT, flags=re.MULTILINE) if s.strip() and not s.startswith("#")]


def test_everything_installed_is_checked_against_a_hash() -> None:
    for install in re.findall(r"pip install [^&\n]*", TEXT):
        assert "--require-hashes" in install or "--no-index" in install
    assert not re.search(r"https?://", TEXT)


def test_the_image_runs_as_an_unprivileged_user_with_tidegauge_as_its_command() -> None:
    last = STAGES[-1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["tidegauge"]' in last
    assert last.index("USER") > last.index("RUN")
    assert "pip" not in last


def test_everything_copied_passes_the_dockerignore_file() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE):
        for source in line.split()[:-1]:
            assert source in allowed, source


def test_the_build_tools_are_in_the_lock() -> None:
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    block = re.search(r"^setuptools==(?:.*\\\n)+.*$", lock, re.MULTILINE)
    assert block is not None
    assert "--hash=sha256:" in block[0]


@pytest.mark.parametrize("package", ["schemas", "detectors", "sinks", "flows"])
def test_every_package_of_ours_is_copied(package: str) -> None:
    assert f"COPY {package} {package}" in TEXT
