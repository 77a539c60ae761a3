"""Two worker threads must never be the first to use a struct: msgspec crashes when both build it at once."""

from __future__ import annotations

import subprocess
import sys

THREADS = """
import threading, flows.runtime, flows.causes
from flows.warm_types import warm_types
warm_types()
assert flows.causes.default_rules.cache_info().currsize == 1
"""


def test_all_structs_and_the_cause_rules_are_ready_before_the_engine_starts() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
