"""`tidegauge migrate`: create or bring up to date the tables."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.settings_file import load, secret
from schemas.errors import BadSettings
from sinks.clickhouse.client import connect
from sinks.clickhouse.migrate import migrate as apply


def migrate(
    *,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    clickhouse: Annotated[str | None, Parameter(name="--clickhouse")] = None,
) -> int:
    """Create the tables in ClickHouse, or bring them up to date. Safe to run again.

    Example: tidegauge migrate --clickhouse http://tidegauge@localhost:8123/tidegauge

    Parameters
    ----------
    config
        Settings file.
    clickhouse
        Database instead of the settings' one.
    """
    c = load(config).clickhouse
    if c is None:
        raise BadSettings("migrate: the settings switch ClickHouse off. Name a database with --clickhouse.")
    client = connect(
        clickhouse or c.url,
        password=secret(c.password, c.password_file, "clickhouse.password"),
        verify_tls=c.verify_tls,
    )
    names = apply(client, ttl_days_raw=c.ttl_days_raw, ttl_days_windows=c.ttl_days_windows)
    for name in names:
        print(f"applied {name}")
    if not names:
        print("nothing to do: the tables are up to date")
    return 0
