"""Rules and dashboard speak of metrics that the exporter has, with its labels; each of them is looked at somewhere."""

import json
import re
from typing import Any

import pytest
import yaml

from pipelines.runs.exporter import LedgerCollector, names
from pipelines.runs.ledger import OUTCOMES, Ledger
from tests.manifests.overlays import MANIFESTS, OVERLAYS, of_kind

FOLDER = MANIFESTS / "base" / "monitoring"
_METRIC = re.compile(r"\bwfm_[a-z_]+\b")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return list(json.loads((FOLDER / "dashboard.json").read_text())["panels"])


def expressions() -> list[str]:
    """Every one of a rule, a panel, a variable of the dashboard."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    variables = [one["query"]["query"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    return [
        *(rule["expr"] for rule in rules()),
        *(target["expr"] for panel in panels() for target in panel["targets"]),
        *variables,
    ]


def test_every_metric_is_one_of_the_exporter_and_each_is_looked_at() -> None:
    used = {name for each in expressions() for name in _METRIC.findall(each)}
    assert used == names()


def test_every_label_is_one_that_the_metrics_have() -> None:
    values = {
        "state": {"running", "silent"},
        "reason": {"queue", "quota", "other"},
        "outcome": {*OUTCOMES, "other"},
    }
    found = LedgerCollector(Ledger(None)).collect()  # type: ignore[arg-type]
    labels = {label for family in found for label in getattr(family, "_labelnames", ())}
    assert labels == {"stage", *values}
    for expression in expressions():
        for label, value in _MATCHER.findall(expression):
            assert label in labels, expression
            if label in values:
                assert set(value.split("|")) <= values[label], expression
        by = [name.strip() for names in re.findall(r"by \(([^)]*)\)", expression) for name in names.split(",")]
        assert set(by) <= labels, expression


def test_every_alert_says_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) > 5
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "what_to_do"}
        assert rule["labels"]["severity"] in ("info", "warning")


def test_panels_have_places_of_their_own() -> None:
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels()]
    assert len(set(places)) == len(places)
    assert len({one["id"] for one in panels()}) == len(panels())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_cluster_gets_these_files(overlay: str) -> None:
    maps = of_kind(overlay, "ConfigMap")
    assert yaml.safe_load(maps["wfm-rules"]["data"]["rules.yaml"])["groups"][0]["rules"] == rules()
    assert json.loads(maps["wfm-dashboard"]["data"]["wfm.json"])["panels"] == panels()
