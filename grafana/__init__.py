"""Dashboards as code: `python -m grafana.build` writes the JSON files and the list in `docs/dashboards.md`."""
