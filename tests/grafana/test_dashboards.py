from __future__ import annotations

import re

import pytest

from flows.incidents.text import links
from flows.settings import Windows
from grafana.build import DASHBOARDS, DOC, OUT, ROOT, files
from grafana.sql import gpu_rows, request_rows
from schemas.gpu_window import GPU_SERIES_DIMS, ROLLUPS
from schemas.incident import KINDS
from tests.grafana.macros import expand
from tests.grafana.queries import INTERVAL_MS, QUERIES, dashboards, panels

DATASOURCE = {"type": "grafana-clickhouse-datasource", "uid": "clickhouse"}


# ---------------------------------------------------------------------- the JSON
def test_checked_in_files_are_up_to_date() -> None:
    stale = [str(p.relative_to(ROOT)) for p, content in files().items() if p.read_text(encoding="utf-8") != content]
    assert not stale, "run `python -m grafana.build`"
    assert {p.stem for p in OUT.glob("*.json")} == {f"tidegauge-{d.slug}" for d in DASHBOARDS}


def test_incident_links_of_every_kind_lead_to_a_dashboard_that_knows_its_dimensions() -> None:
    found = dashboards()
    dims = {
        "attribution": ("team", "product", "provider", "model", "prompt_version", "api_key_id"),
        "observability": ("team", "product", "provider", "model", "prompt_version", "api_key_id"),
        "cost-efficiency": ("team", "product", "provider", "model", "prompt_version"),
        "capacity": ("cluster", "node", "gpu", "pool", "gpu_model", "team", "model", "provider"),
    }
    for kind in KINDS:
        link = links(kind, "x", {}, 0, 1, dashboard="https://g.example", runbook="")["dashboard"]
        uid = re.search(r"/d/([\w-]+)", link)
        assert uid is not None
        variables = {v["name"] for v in found[uid[1]]["templating"]["list"]}
        assert variables >= set(dims[uid[1].removeprefix("tidegauge-")])


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_dashboard_is_whole(name: str) -> None:
    dashboard = dashboards()[name]
    assert dashboard["uid"] == name
    assert dashboard["id"] is None
    ids = [p["id"] for p in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [p["title"] for p in panels(dashboard)]
    assert len(set(titles)) == len(titles)
    for panel in panels(dashboard):
        assert panel["description"].rstrip().endswith(("?", ".")), panel["title"]
        assert "?" in panel["description"], f"{panel['title']}: which question does it answer?"
        assert panel["datasource"] == DATASOURCE
        if panel["type"] != "table":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == DATASOURCE
            assert target["editorType"] == "sql"
            assert (target["format"], target["queryType"]) in ((0, "timeseries"), (1, "table"))
            assert (target["format"] == 0) == (panel["type"] == "timeseries")
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["datasource"] == DATASOURCE
            assert variable["includeAll"]
            assert variable["multi"]
    assert any(a["name"] == "Incidents" and a["datasource"] == DATASOURCE for a in dashboard["annotations"]["list"])


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_panels_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboards()[name]["panels"]:
        g = panel["gridPos"]
        assert g["x"] in range(25 - g["w"])
        for cell in ((x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            taken[cell] = panel["title"]


def test_overridden_columns_exist() -> None:
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            if panel["type"] == "table":
                sql = panel["targets"][0]["rawSql"]
                for override in panel["fieldConfig"]["overrides"]:
                    heading = override["matcher"]["options"]
                    assert f"AS `{heading}`" in sql or f"AS {heading}" in sql, f"{name}: {panel['title']}: {heading}"


def test_queries_read_windows_never_everything() -> None:
    for query in QUERIES:
        where = f"{query.dashboard}: {query.place}"
        assert "*" not in re.sub(r"\s\*\s", "", query.sql), f"{where}: no SELECT *"
        assert not re.search(r"\b(?:FROM|JOIN)\s+(?:requests|gpu_samples)(?:_final)?\b", query.sql), where
        assert not re.search(r"avg\(\w+_p\d\d\)", query.sql), f"{where}: percentiles are never averaged"
        if "windows_final" in query.sql:
            assert query.sql.count("windows_final") == query.sql.count("grouping ="), (
                f"{where}: one grouping set per read"
            )


def test_grouping_sets_in_queries_are_watched_by_default() -> None:
    known = (
        {",".join(g) for g in Windows().grouping_sets} | {",".join(r) for r in ROLLUPS} | {",".join(GPU_SERIES_DIMS)}
    )
    for query in QUERIES:
        for branches in re.findall(
            r"grouping = (?:multiIf\((.*?)\)(?=\n    AND|\n\s+AND)|'([^']*)')", query.sql, re.DOTALL
        ):
            text_ = re.sub(r"\$__conditionalAll\([^)]*\)", "", branches[0] or f"'{branches[1]}'")
            for name in re.findall(r"'([^']*)'", text_):
                assert name in known or name.startswith("no grouping set"), f"{query.place}: {name}"


def test_every_panel_is_documented_with_its_question() -> None:
    doc = DOC.read_text(encoding="utf-8")
    for dashboard in dashboards().values():
        assert dashboard["uid"] in doc
        for panel in panels(dashboard):
            assert f"| {panel['title']} | {panel['description']} |" in doc


# ---------------------------------------------------------------------- the builder
def test_the_smallest_grouping_set_is_read() -> None:
    assert request_rows(()).startswith("grouping = ''\n")
    assert request_rows((), ["team"]).startswith("grouping = 'team'\n")
    assert gpu_rows((), ["gpu"]).startswith("grouping = 'cluster,node,gpu,mig_id'\n")


def test_a_panel_over_dimensions_that_no_grouping_set_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no grouping set"):
        request_rows((), ["user_id"])


@pytest.mark.parametrize("sql", ["SELECT $__nonsense(1)", "SELECT ${team}", "SELECT $__conditionalAll(a, $b)"])
def test_unknown_macros_and_variables_are_errors(sql: str) -> None:
    with pytest.raises(ValueError, match=r"variable|macro"):
        expand(sql, 0, 1, INTERVAL_MS, {})
