"""Certificates made for one test run: an authority of its own, and a server certificate for 127.0.0.1."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.servers.cache import missing


class Authority:
    """A certificate authority that nobody else trusts.

    Parameters
    ----------
    path
        Directory for keys and certificates.
    """

    def __init__(self, path: Path) -> None:
        if shutil.which("openssl") is None:
            missing("certificates: openssl is not installed")
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.certificate = path / "ca.pem"
        _openssl(path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
                 "-days", "2", "-subj", "/CN=Test authority")  # fmt: skip

    def issue(self, name: str) -> Path:
        """PEM file with key and certificate for 127.0.0.1, as Kafka's PEM key store wants it."""
        _openssl(self.path, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                 "-subj", f"/CN={name}")  # fmt: skip
        (self.path / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        _openssl(self.path, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                 "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-extfile", f"{name}.ext")  # fmt: skip
        both = self.path / f"{name}.pem"
        both.write_text((self.path / f"{name}.key").read_text() + (self.path / f"{name}.crt").read_text())
        return both


def _openssl(path: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=path, check=True, capture_output=True, timeout=60)
