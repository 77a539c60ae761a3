"""Directories that hold saved state: ours alone.

The engine reads its recovery store with pickle, so whoever may write there may run code as us. `recovery_store` looks
at every record before the engine does, and nobody else gets that far: the directories are made for the owner alone.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import structlog

from schemas.errors import BadSettings


def check_parent(directory: Path) -> None:
    """Make the state directory, for the owner alone, or look at the one that is there.

    Raises
    ------
    BadSettings
        Everybody may write to it.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH:
        raise BadSettings(
            f"state_dir: everybody may write to {directory}, so anybody could forge saved state. "
            f"Run `chmod o-w {directory}`, or set state_dir to a directory inside it."
        )
    if mode & stat.S_IWGRP:
        structlog.get_logger().warning("the group may write to the state directory", path=str(directory))


def make_private(directory: Path) -> None:
    """Make a directory for the owner alone; one that is there already is closed to others.

    Raises
    ------
    BadSettings
        It belongs to somebody else.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise BadSettings(
            f"state_dir: {directory} belongs to user {found.st_uid}, not to {os.geteuid()} who runs this, so its "
            "content cannot be trusted. Give it to that user, or set another state_dir."
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        directory.chmod(0o700)
