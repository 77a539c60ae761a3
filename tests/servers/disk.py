"""A disk that is small enough to be filled: a tmpfs of the test's own, where mounting is permitted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType

import pytest


class SmallDisk:
    """A file system of some megabytes. A context manager: leaving it unmounts, whatever still has files open there.

    Parameters
    ----------
    path
        Where it is mounted; made if missing.
    megabytes
        Its size.
    """

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path, self._megabytes = path, megabytes

    def __enter__(self) -> SmallDisk:
        self.path.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "tidegauge-test", str(self.path)]
        try:
            subprocess.run(mount, check=True, capture_output=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            pytest.skip("small disk: mounting a tmpfs is not permitted here")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True, capture_output=True, timeout=20)

    def fill(self, *, leaving: int) -> None:
        """Use everything up but some bytes."""
        state = os.statvfs(self.path)
        with open(self.path / "ballast", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_frsize - leaving, 1))

    def empty(self) -> None:
        """Make room again."""
        (self.path / "ballast").unlink()
