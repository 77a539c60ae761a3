"""Coverage-guided search on the decoders: `python -m tests.fuzz --seconds 600`.

The first byte of an input chooses the format, the rest is the message. An input that breaks a rule is printed and kept
in `--out`; put it into corpus.json, so that it is tried first from then on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["schemas", "flows.partition"]):
    from tests.fuzz.rules import hold
    from tests.fuzz.seeds import NAMES, ODD, corpus, samples

HANG_S = 60
"""An input that takes longer is a stall."""
LARGEST_ALLOCATION_MB = 512
"""Of one allocation. The process as a whole has no limit: libFuzzer itself keeps some kilobytes of every run."""
MOST_BYTES = 4_096


def try_one(data: bytes) -> None:
    """Hold the rules for one input."""
    if not data:
        return
    name, payload = NAMES[data[0] % len(NAMES)], data[1:]
    try:
        hold(name, payload)
    except BaseException:
        print(f"format {name}, message {payload!r}", file=sys.stderr)
        raise


def main() -> None:
    """Search until the time or the number of runs is used up; exit code 77 tells of a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=0, help="how long (0: no limit)")
    parser.add_argument("--runs", type=int, default=-1, help="how many inputs (-1: no limit)")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for inputs that break a rule")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "corpus"
        found.mkdir()
        for number, name in enumerate(NAMES):
            for i, payload in enumerate([*samples(name), *corpus(name)]):
                (found / f"{name}-{i}").write_bytes(bytes([number]) + payload)
        words = Path(folder) / "words"
        spelled = ["".join(f"\\x{byte:02x}" for byte in word) for word in ODD if 0 < len(word) <= 64]
        words.write_text("".join(f'"{word}"\n' for word in spelled), "ascii")
        given.out.mkdir(parents=True, exist_ok=True)
        options = [
            f"-dict={words}", f"-runs={given.runs}", f"-max_total_time={given.seconds}", f"-seed={given.seed}",
            f"-timeout={HANG_S}", "-rss_limit_mb=0", f"-malloc_limit_mb={LARGEST_ALLOCATION_MB}",
            f"-max_len={MOST_BYTES}", "-print_final_stats=1", f"-artifact_prefix={given.out}/", str(found),
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
