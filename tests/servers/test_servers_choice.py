"""Addresses given, then Docker, then processes of our own. The engine is a fake one: `docker` on the path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.servers import docker
from tests.servers.choice import FORCED, GIVEN, served, way

FAKE = """#!{python}
import json, os, pathlib, signal, subprocess, sys
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
command = sys.argv[1]
if command in {fails!r}:
    sys.exit("Cannot connect to the Docker daemon")
if command == "run":
    port = sys.argv[sys.argv.index("--publish") + 1].split(":")[1]
    server = subprocess.Popen([sys.executable, "-c", '''
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Ok.")
    def log_message(self, *a):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
''', port], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (here / "pid").write_text(str(server.pid))
if command == "rm" and (here / "pid").exists():
    os.kill(int((here / "pid").read_text()), signal.SIGKILL)
    (here / "pid").unlink()
"""


class FakeDocker:
    """A `docker` that writes down what it is asked, and starts a small HTTP server instead of a container."""

    def __init__(self, folder: Path, fails: tuple[str, ...] = ()) -> None:
        self.folder = folder
        folder.mkdir()
        script = folder / "docker"
        script.write_text(FAKE.format(python=sys.executable, fails=fails))
        script.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        log = self.folder / "calls"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture(autouse=True)
def _undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (FORCED, "TIDEGAUGE_REQUIRE_SERVERS", *GIVEN.values()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(docker, "engine_answers", docker.engine_answers.__wrapped__)


def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *fails: str) -> FakeDocker:
    it = FakeDocker(tmp_path / "bin", fails)
    monkeypatch.setenv("PATH", str(it.folder))
    return it


@pytest.mark.parametrize("server", GIVEN)
def test_a_given_address_wins_and_nothing_is_asked_or_started(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    it = fake(monkeypatch, tmp_path)
    monkeypatch.setenv(GIVEN[server], "somewhere:1")
    for forced in ("", "docker", "local"):
        monkeypatch.setenv(FORCED, forced)
        with served(server, tmp_path) as address:
            assert address == "somewhere:1"
    assert it.calls == []


def test_an_engine_that_answers_is_next_and_without_one_it_is_a_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    it = fake(monkeypatch, tmp_path)
    assert way("kafka") == "docker"
    assert it.calls == [["info", "--format", "{{.ServerVersion}}"]]
    monkeypatch.setenv(FORCED, "local")
    assert way("kafka") == "local"
    assert len(it.calls) == 1
    monkeypatch.delenv(FORCED)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert way("kafka") == "local"


def test_an_engine_that_hangs_or_refuses_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    it = fake(monkeypatch, tmp_path, "info")
    assert way("clickhouse") == "local"
    (it.folder / "docker").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    monkeypatch.setattr(docker, "INFO_TIMEOUT_S", 0.3)
    assert way("clickhouse") == "local"


def test_a_way_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCED, "podman")
    with pytest.raises(ValueError, match="expected docker or local"):
        way("kafka")


@pytest.mark.parametrize(
    ("server", "inside", "variables"),
    [("clickhouse", 8123, ["--env", "CLICKHOUSE_SKIP_USER_SETUP=1"]), ("alertmanager", 9093, [])],
)
def test_a_container_runs_the_pinned_image_on_loopback_and_is_removed(
    server: str, inside: int, variables: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    it = fake(monkeypatch, tmp_path)
    with served(server, tmp_path) as address:
        port = address.split(":")[2].split("/")[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
            assert answer.read() == b"Ok."
    _, run, remove = it.calls
    name = run[run.index("--name") + 1]
    assert name.startswith(f"tidegauge-test-{server}-")
    assert run == [
        "run", "--detach", "--rm", "--name", name, "--label", "tidegauge.test",
        "--publish", f"127.0.0.1:{port}:{inside}", *variables, docker.image(server),
    ]  # fmt: skip
    assert remove == ["rm", "--force", "--volumes", name]


def test_images_are_those_of_the_compose_file() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert docker.image("kafka") == services["kafka"]["image"]
    assert docker.image("clickhouse") == services["clickhouse"]["image"]


def test_the_broker_tells_clients_the_published_port_and_itself_one_of_its_own() -> None:
    arguments = docker.run_arguments("kafka", 31_234, "n")
    assert arguments[: arguments.index("--env")] == [
        "run", "--detach", "--rm", "--name", "n", "--label", "tidegauge.test", "--publish", "127.0.0.1:31234:9092",
    ]  # fmt: skip
    assert "KAFKA_ADVERTISED_LISTENERS=INTERNAL://localhost:19092,HOST://127.0.0.1:31234" in arguments
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["kafka"]["environment"]
    ours = dict(a.split("=", 1) for a in arguments if a.startswith("KAFKA_"))
    same = set(compose) & set(ours) - {"KAFKA_ADVERTISED_LISTENERS"}
    assert {k: ours[k] for k in same} == {k: compose[k] for k in same}
    assert len(same) >= 9


def test_an_image_that_cannot_be_had_falls_back_to_a_process_unless_docker_is_demanded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    it = fake(monkeypatch, tmp_path, "run", "rm")
    with (
        pytest.raises(pytest.skip.Exception, match="prometheus-alertmanager is not installed"),
        served("alertmanager", tmp_path),
    ):
        pass
    assert [call[0] for call in it.calls] == ["info", "run", "rm"]
    monkeypatch.setenv(FORCED, "docker")
    with (
        pytest.raises(pytest.skip.Exception, match="alertmanager: docker run failed: Cannot connect to the Docker"),
        served("alertmanager", tmp_path),
    ):
        pass


@pytest.mark.slow
def test_a_machine_with_only_python_says_in_one_line_what_it_left_out(tmp_path: Path) -> None:
    environment = {
        k: v for k, v in os.environ.items() if k not in (FORCED, "TIDEGAUGE_REQUIRE_SERVERS", *GIVEN.values())
    }
    tests = ["tests/servers/test_servers_kafka.py", "tests/sinks/test_alertmanager.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        cwd=ROOT, env={**environment, "PATH": str(tmp_path)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2_000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("left out: ")]
    assert "x Kafka broker: java (17 or newer) is not installed" in line
    assert "x Alertmanager: the Debian package prometheus-alertmanager is not installed" in line
