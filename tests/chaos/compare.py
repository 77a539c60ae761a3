"""Whether two installations left the same, row by row, asked of the server that holds both."""

from __future__ import annotations

from collections import Counter

from tests.e2e.live import TABLES, Live
from tests.e2e.oncall import OWN, OnCall

_SQL = """
SELECT sum(abs(n)) FROM (
    SELECT row, sum(sign) AS n FROM (
        SELECT {columns} AS row, 1 AS sign FROM {a}.{table} FINAL {where}
        UNION ALL SELECT {columns}, -1 FROM {b}.{table} FINAL {where}
    ) GROUP BY row
)
"""


def differences(a: Live, b: Live) -> dict[str, int]:
    """Rows that one has and the other has not, by table; tables without a difference are left out.

    What Tidegauge says about itself follows the clock and is left out, as is the time of insertion.
    """
    out = {}
    for table in TABLES:
        sql = _SQL.format(
            columns="cityHash64(toString(tuple(COLUMNS('.*') EXCEPT inserted_at)))",
            a=a.database, b=b.database, table=table, where=f"WHERE kind != '{OWN}'" if table == "incidents" else "",
        )  # fmt: skip
        ((n,),) = a.query(sql)
        if n:
            out[table] = int(n)
    return out


def told_differently(a: OnCall, b: OnCall) -> list[str]:
    """What on-call knows after one run only, and messages that came again under another identity.

    While the past is read, an incident may open and end within one delivery and then comes as its end alone.
    """
    out = [f"{i} {'over' if over else 'open'}" for i, over in sorted(_known(a) ^ _known(b))]
    for on_call in (a, b):
        keys: dict[tuple[str, str], set[str]] = {}
        for _, webhook_id, i in on_call.incidents:
            if i["kind"] != OWN:
                keys.setdefault((i["incident_id"], i["state"]), set()).add(webhook_id)
        out += [f"{i} {state} under {len(ids)} keys" for (i, state), ids in sorted(keys.items()) if len(ids) > 1]
    return out


def _known(on_call: OnCall) -> set[tuple[str, bool]]:
    """Incidents that were told, and whether their end was."""
    received = on_call.received()
    return {(incident_id, (incident_id, "resolved") in received) for incident_id, _ in received}


def repeats(on_call: OnCall) -> int:
    """Messages beyond one per incident and state: sent again, under the same key, since a crash came between."""
    received: Counter[tuple[str, str]] = on_call.received()
    return sum(received.values()) - len(received)
