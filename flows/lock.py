"""One process per state directory: a second start on the same one is refused."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.private_dir import check_parent
from schemas.errors import BadSettings


@contextmanager
def hold(state_dir: str, process: int) -> Iterator[None]:
    """Hold the state directory of one process for as long as the block runs.

    Raises
    ------
    BadSettings
        Another process holds it, or everybody may write to it.
    """
    directory = Path(state_dir)
    check_parent(directory)
    with (directory / f"process-{process}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            file.seek(0)
            raise BadSettings(
                f"run: {directory} is in use by process {file.read().strip() or 'unknown'}. "
                "Stop it, or set another state_dir."
            ) from problem
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
