from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.settings_file import parse

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
ONE_SHOT = {"kafka-topics"}
USERS = [f"CLICKHOUSE_{user}_{form}" for user in ("WRITER", "READER") for form in ("PASSWORD", "SHA256")]
VARIABLES = dict.fromkeys([*USERS, "GRAFANA_ADMIN_PASSWORD"], "x")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return document


def program() -> list[str] | None:
    """Compose, if there is one on this machine."""
    if shutil.which("docker") is not None:
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False, timeout=30)
        if found.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") is not None else None


def config(environment: dict[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    command = program()
    if command is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    clean = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    # A copy, so that nobody's own .env answers for the variables.
    shutil.copy(COMPOSE, directory)
    (directory / "deploy").mkdir()
    return subprocess.run(
        [*command, "-f", str(directory / "docker-compose.yml"), "config"],
        capture_output=True, text=True, check=False, timeout=60, cwd=directory, env={**clean, **environment},
    )  # fmt: skip


def test_compose_accepts_the_file(tmp_path: Path) -> None:
    result = config(VARIABLES, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "clickhouse" in yaml.safe_load(result.stdout)["services"]


def test_compose_refuses_to_start_without_passwords_and_says_what_to_do(tmp_path: Path) -> None:
    result = config({}, tmp_path)
    assert result.returncode != 0
    assert "deploy/secrets.sh" in result.stderr


def test_every_variable_is_required_and_written_by_the_script() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    used = re.findall(r"(?<!\$)\$\{(\w+)(:\?[^}]+)?\}", text)
    assert {name for name, _ in used} == set(VARIABLES)
    assert all(message for _, message in used)
    script = (ROOT / "deploy" / "secrets.sh").read_text(encoding="utf-8")
    assert set(re.findall(r"^(\w+)=\$", script, re.MULTILINE)) >= set(VARIABLES)


def test_every_lasting_service_has_a_health_check(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name in ONE_SHOT:
            assert service["restart"] == "no"
        else:
            assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"]), name
            assert service["restart"] == "unless-stopped"


def test_every_service_is_limited_and_cannot_gain_rights(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) == {"cpus", "memory"}, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["logging"]["options"]["max-size"], name
        assert service["networks"], name
        assert not service.get("privileged")


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) >= 4
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        image, _, tag = service["image"].partition(":")
        assert tag not in ("", "latest"), name
        assert "." not in image.split("/")[0], f"{name}: no registry host"


def test_no_password_stands_in_a_file(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|SHA256", key):
                assert str(value).startswith("${"), key
    for path in ("deploy/tidegauge.yaml", "grafana/provisioning/datasources/clickhouse.yaml"):
        for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
            found = re.match(r"\s*password:\s*(\S+)", line)
            assert not found or found[1].startswith("$"), f"{path}: {line}"


def test_services_wait_for_what_they_need(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how["condition"] == wanted, f"{name} → {other}"
    assert set(services["tidegauge"]["depends_on"]) == {"kafka-topics", "clickhouse"}
    assert services["simulator"]["profiles"] == ["demo"]


def test_our_containers_are_read_only_and_keep_state_in_a_volume(compose: dict[str, Any]) -> None:
    for name in ("tidegauge", "simulator"):
        assert compose["services"][name]["read_only"] is True
        assert compose["services"][name]["cap_drop"] == ["ALL"]
    settings = yaml.safe_load((ROOT / "deploy" / "tidegauge.yaml").read_text(encoding="utf-8"))
    volumes = dict(v.split(":")[:2] for v in compose["services"]["tidegauge"]["volumes"])
    assert volumes["tidegauge-state"] == settings["state_dir"]
    assert "tidegauge-state" in compose["volumes"]


def test_mounted_files_are_in_the_repository(compose: dict[str, Any]) -> None:
    mounts = [v.split(":")[0] for s in compose["services"].values() for v in s.get("volumes", [])]
    for path in (m for m in mounts if m.startswith("./")):
        assert (ROOT / path).exists(), path


def test_settings_fit_the_services(compose: dict[str, Any]) -> None:
    text = (ROOT / "deploy" / "tidegauge.yaml").read_text(encoding="utf-8")
    settings = parse(text, "deploy/tidegauge.yaml", {"CLICKHOUSE_WRITER_PASSWORD": "x"})
    assert settings.kafka.bootstrap_servers in compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert settings.clickhouse is not None
    assert "@clickhouse:8123/" in settings.clickhouse.url
    topics = (ROOT / "deploy" / "create_topics.sh").read_text(encoding="utf-8")
    k = settings.kafka
    for topic in (k.requests_topic, k.gpus_topic, k.incidents_topic, k.dead_letters_topic):
        assert f"make_topic {topic} " in topics
    assert f"127.0.0.1:{settings.metrics.port}" in str(compose["services"]["tidegauge"]["ports"])


def test_the_incident_links_lead_to_the_published_grafana(compose: dict[str, Any]) -> None:
    settings = yaml.safe_load((ROOT / "deploy" / "tidegauge.yaml").read_text(encoding="utf-8"))
    port = compose["services"]["grafana"]["ports"][0].split(":")[1]
    assert settings["incidents"]["dashboard_url"] == f"http://localhost:{port}"


def test_provisioning_reads_the_mounted_dashboards_with_the_reader(compose: dict[str, Any]) -> None:
    grafana = compose["services"]["grafana"]
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/tidegauge.yaml").read_text(encoding="utf-8"))
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/clickhouse.yaml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    mounts = dict(v.split(":")[:2] for v in grafana["volumes"])
    assert provider["providers"][0]["options"]["path"] == mounts["./grafana/dashboards"]
    assert source["jsonData"]["host"].removeprefix("$") in grafana["environment"]
    assert source["secureJsonData"]["password"].removeprefix("$") in grafana["environment"]
    users = (ROOT / "deploy/clickhouse/users.d/tidegauge.xml").read_text(encoding="utf-8")
    assert f"<{source['jsonData']['username']}>" in users


def test_secrets_are_random_private_and_kept(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(ROOT / "deploy" / "secrets.sh", tmp_path / "deploy")
    subprocess.run(["sh", script], check=True, capture_output=True, timeout=30)
    first = (tmp_path / ".env").read_text()
    values = dict(line.split("=", 1) for line in first.splitlines())
    assert set(values) == set(VARIABLES)
    assert len(set(values.values())) == len(values)
    assert all(re.fullmatch(r"[0-9a-f]{48}|[0-9a-f]{64}", v) for v in values.values())
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    again = subprocess.run(["sh", script], check=True, capture_output=True, text=True, timeout=30)
    assert (tmp_path / ".env").read_text() == first
    assert not any(v in again.stdout + again.stderr for v in values.values())


def test_env_is_ignored_by_git_and_docker() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert lines[lines.index("*") :].index("**/.env*") > 0
