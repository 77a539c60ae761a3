"""ClickHouse: connections, migrations, tables as Arrow, and the writer that spools what the database cannot take."""

from sinks.clickhouse.client import connect, parse
from sinks.clickhouse.migrator import migrate
from sinks.clickhouse.quantiles import merged_quantile
from sinks.clickhouse.writer import Writer

__all__ = ["Writer", "connect", "merged_quantile", "migrate", "parse"]
