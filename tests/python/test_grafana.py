"""The Grafana dashboard: it asks for metrics that exist, by labels that they have, and Grafana can lay it out.

Thread rule: one thread.
Refuses to know: the command that prints it (test_cli).
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from stillwarm import Cache, metrics
from stillwarm._readings import FIGURES

DASHBOARD: dict[str, Any] = json.loads(metrics.grafana_dashboard())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
QUERIES = [target["expr"] for panel in CHARTS for target in panel["targets"]] + [
    variable["definition"] for variable in VARIABLES.values() if variable["type"] == "query"
]


def exported() -> dict[str, set[str]]:
    """What a scrape shows: names of samples, and the labels of each metric."""
    registry = CollectorRegistry()
    metrics.register(Cache(namespace="shop"), registry)
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: set(
            FIGURES[family.name.removeprefix("stillwarm_")].labels
        )
        for family in registry.collect()
    }


def test_grafana_asks_only_for_metrics_that_are_exported() -> None:
    names = {name for query in QUERIES for name in re.findall(r"\bstillwarm_\w+", query)}
    assert len(names) > 15
    assert names - exported().keys() == set()


def test_grafana_shows_every_metric() -> None:
    text = " ".join(QUERIES)
    assert [name for name in exported() if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("query", QUERIES)
def test_grafana_selects_and_groups_by_labels_that_the_metrics_have(query: str) -> None:
    labels = exported()
    for name, selector in re.findall(r"\b(stillwarm_\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)) <= labels[name]
        assert 'namespace=~"$namespace"' in selector
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        wanted = {label.strip() for label in grouped.split(",")}
        assert all(wanted <= labels[name] for name in re.findall(r"\bstillwarm_\w+", query))
    for open_, close in ("()", "{}", "[]"):
        assert query.count(open_) == query.count(close)


@pytest.mark.parametrize("query", [query for query in QUERIES if "_total" in query and "label_values" not in query])
def test_grafana_takes_rates_of_counters_and_of_nothing_else(query: str) -> None:
    for name in re.findall(r"\bstillwarm_\w+", query):
        inside = re.search(rf"(?:rate|increase)\({name}(?:\{{[^}}]*\}})?\[\$__rate_interval\]\)", query)
        assert bool(inside) == name.endswith("_total")


def test_grafana_legends_name_labels_that_are_left_by_the_query() -> None:
    for panel in CHARTS:
        for target in panel["targets"]:
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


def test_grafana_has_what_an_import_needs() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["id"] is None, "Grafana gives the id"
    assert DASHBOARD["title"] == "stillwarm"
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))
    assert {"datasource", "namespace", "type"} == set(VARIABLES)
    for variable in re.findall(r"\$(\w+)", " ".join(QUERIES)):
        assert variable in {*VARIABLES, "__rate_interval"}


@pytest.mark.parametrize("panel", CHARTS, ids=lambda panel: f"{panel['id']}-{panel['title']}")
def test_grafana_panel_is_complete(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"stat", "timeseries", "state-timeline"}
    assert panel["title"]
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    references = [target["refId"] for target in panel["targets"]]
    assert references
    assert len(references) == len(set(references))
    for source in (panel, *panel["targets"]):
        assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_grafana_panels_do_not_overlap_and_leave_no_row_empty() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        assert place["h"] > 0
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)
    cells = sum(place["w"] * place["h"] for place in places)
    assert cells == 24 * max(place["y"] + place["h"] for place in places), "a gap"
