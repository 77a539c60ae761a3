"""Asks the demo's database: `python -m flows.demo.ask FOLDER "SELECT ..."`."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sinks.clickhouse.client import connect
from sinks.wording import clean


def main(folder: str, question: str) -> None:
    """Print the answer as a table."""
    client = connect(f"chdb://{folder}/clickhouse", password=None)
    answer = client.query(question)
    table = Table(*answer.column_names)
    for row in answer.result_rows:
        table.add_row(*(Text(clean(str(value))) for value in row))  # no markup, no escape sequences
    Console().print(table)
    client.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit('usage: python -m flows.demo.ask FOLDER "SELECT ..."')
    main(sys.argv[1], sys.argv[2])
