"""ClickHouse: connections, migrations, tables as Arrow, and the writer that spools what the database cannot take."""
