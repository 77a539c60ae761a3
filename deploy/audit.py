"""`make audit`: looks for known weaknesses in the locked dependencies and says in one line what it found.

Fails on a known weakness. Where the advisory service cannot be reached, or does not know a package, that is said, and
is no failure: otherwise nobody could work offline.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

TIMEOUT_S = 60


def audit(command: Sequence[str]) -> tuple[int, str]:
    """Run `pip-audit` and put its answer into words.

    Parameters
    ----------
    command
        What gives pip-audit's JSON.

    Returns
    -------
    tuple
        Exit code and what to print.
    """
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return 0, f"audit: NOT DONE, nothing is known about any dependency ({type(problem).__name__})"
    try:
        dependencies: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = run.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return 0, f"audit: NOT DONE, nothing is known about any dependency ({last[0][:200]})"
    skipped = [d for d in dependencies if "skip_reason" in d]
    weak = {d["name"]: d for d in dependencies if d.get("vulns")}
    summary = (
        f"audit: {len(dependencies) - len(skipped)} audited, {len(weak)} vulnerable, "
        f"{len(skipped)} could not be audited"
    )
    if skipped:
        summary += f" (such as {skipped[0]['name']}: the advisory service does not know it)"
    for name, d in sorted(weak.items()):
        for found in d["vulns"]:
            fixed = ", ".join(found.get("fix_versions", [])) or "no version yet"
            summary += f"\n  {name} {d.get('version', '')}: {found['id']}, fixed in {fixed}"
    return (1 if weak else 0), summary


if __name__ == "__main__":
    code, words = audit(
        [
            sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes",
            "--requirement", "requirements.lock", "--format", "json", "--progress-spinner", "off", "--timeout", "10",
        ]
    )  # fmt: skip
    print(words)
    sys.exit(code)
