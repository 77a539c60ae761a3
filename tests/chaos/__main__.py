"""`make chaos`: the long form of every scenario, as a table and as JSON lines.

``python -m tests.chaos [--short] [--out FILE.jsonl] [crash | clickhouse | receivers | kafka | overload]…``
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.form import LONG, SHORT, Servers
from tests.chaos.report import Row, markdown
from tests.chaos.scenarios import SCENARIOS
from tests.servers.cache import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.kafka import KafkaBroker


def main() -> int:
    """Run, print each row as it comes, and the whole table at the end; 1 if anything was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults against real servers.")
    parser.add_argument("names", nargs="*", help="scenarios; all by default")
    parser.add_argument("--short", action="store_true", help="seconds per fault instead of minutes")
    parser.add_argument("--out", type=Path, help="append rows as JSON lines")
    given = parser.parse_args()
    form = SHORT if given.short else LONG
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tidegauge-chaos-") as folder:
        broker = KafkaBroker(Path(folder) / "servers" / "kafka", free_port(), free_port())
        server = ClickHouseServer(Path(folder) / "servers" / "clickhouse", free_port())
        broker.start()
        server.start()
        try:
            for name in given.names or list(SCENARIOS):
                begun = time.monotonic()
                where = Path(folder) / "scenarios" / name
                where.mkdir(parents=True)
                for row in SCENARIOS[name](Servers(broker.bootstrap_servers, server.url, where), form):
                    print(markdown([row]).splitlines()[-1], flush=True)
                    rows.append(row)
                    if given.out is not None:
                        with given.out.open("a") as out:
                            out.write(json.dumps({"scenario": name, **row.as_json()}) + "\n")
                print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        finally:
            server.stop()
            broker.stop()
    print("\n" + markdown(rows))
    return int(any(r.lost or r.doubled or r.uncounted or r.alerts_lost or r.alerts_doubled for r in rows))


if __name__ == "__main__":
    sys.exit(main())
