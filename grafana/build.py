"""Write the dashboards' JSON and the list of panels: `python -m grafana.build`, or `--check` to compare only."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from grafana import attribution, capacity, cost_efficiency, incidents, observability, overview
from grafana.panels import Dashboard, layout

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "grafana" / "dashboards"
DOC = ROOT / "docs" / "dashboards.md"
BEGIN, END = "<!-- panels: written by `python -m grafana.build` -->", "<!-- end of panels -->"

DASHBOARDS: tuple[Dashboard, ...] = (
    overview.DASHBOARD,
    attribution.DASHBOARD,
    observability.DASHBOARD,
    cost_efficiency.DASHBOARD,
    capacity.DASHBOARD,
    incidents.DASHBOARD,
)
"""Every dashboard, in the order in which one reads them."""


def files() -> dict[Path, str]:
    """Every written file with its content; the same on every run."""
    out = {
        OUT / f"tidegauge-{d.slug}.json": json.dumps(layout(d), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        for d in DASHBOARDS
    }
    text = DOC.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    out[DOC] = f"{before}{BEGIN}\n\n{panel_list()}\n{END}{after}"
    return out


def panel_list() -> str:
    """Every dashboard and panel with the question that it answers, as Markdown."""
    lines = []
    for dashboard in DASHBOARDS:
        filters = ", ".join(f"`{v['name']}`" for v in dashboard.variables)
        lines += [f"## {dashboard.title.removeprefix('Tidegauge: ').capitalize()}", "", dashboard.purpose, ""]
        lines += [f"`/d/tidegauge-{dashboard.slug}`, filters {filters}.", "", "| Panel | Question |", "|---|---|"]
        lines += [f"| {p.title} | {p.question} |" for row in dashboard.rows for p in row.panels]
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Write the files, or with `--check` say which ones are out of date."""
    stale = [p for p, text in files().items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date; run `python -m grafana.build`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(files()[path], encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
