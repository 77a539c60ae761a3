"""A real Alertmanager: the Debian package prometheus-alertmanager, or any `alertmanager` on the path."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.servers.cache import missing
from tests.servers.ending import Ending

START_TIMEOUT_S = 60.0
CONFIG = "route: {receiver: none}\nreceivers: [{name: none}]\nglobal: {resolve_timeout: 5m}\n"


class AlertmanagerServer(Ending):
    """One Alertmanager on a loopback port, with its data under `path`; it can be killed and started again.

    Parameters
    ----------
    path
        Directory of the data, the settings and the log; kept between starts.
    port
        HTTP port; the same one is used after a restart.
    """

    def __init__(self, path: Path, port: int) -> None:
        self.path = path
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it is ready. Skips the test where there is none."""
        binary = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
        if binary is None:
            missing("Alertmanager: the Debian package prometheus-alertmanager is not installed")
        self.path.mkdir(parents=True, exist_ok=True)
        config = self.path / "alertmanager.yml"
        config.write_text(CONFIG)
        with open(self.path / "alertmanager.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={config}",
                    f"--storage.path={self.path / 'data'}",
                    "--cluster.listen-address=",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"Alertmanager did not start: {(self.path / 'alertmanager.log').read_text()[-1500:]}")

    def forget(self) -> None:
        """Delete its data, as a container without a volume does when it is replaced."""
        shutil.rmtree(self.path / "data", ignore_errors=True)
