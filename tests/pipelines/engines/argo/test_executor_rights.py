"""argoexec may do what it asks for in our templates, and no more: by its source, of argo-workflows 4.1.2.

Its requests hang on what a template uses, so each compiled template is walked through: what would ask for more turns this red.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.engines.argo.emit import emit
from pipelines.engines.flow import Notice, Times
from tests.cluster.test_permissions import Right, rights
from tests.pipelines.engines.argo.compiled import SETTINGS, flow
from wfm.cluster.lint import lint
from wfm.cluster.settings import ClusterSettings

Json = dict[str, Any]
MANIFESTS = Path(__file__).parents[4] / "manifests"
REPORT = {("argoproj.io", "workflowtaskresults", "create"), ("argoproj.io", "workflowtaskresults", "patch")}
"""workflow/executor/taskresult.go, upsertTaskResult: create, patch where it is there (main was restarted) or was made before,
and create where it is gone; cmd/argoexec/commands/wait.go and emissary.go report outputs, postmain.go the end by a label."""
AGENT = {
    *(("argoproj.io", "workflowtasksets", verb) for verb in ("get", "list", "watch")),
    ("argoproj.io", "workflowtasksets/status", "patch"),
    ("", "secrets", "get"),
}
"""workflow/executor/agent.go: templates of kind http or plugin are run by an agent's pod."""
KEYS = {("", "secrets", "get"), ("", "configmaps", "get")}
"""workflow/executor/executor.go, GetConfigMapKey and GetSecrets: artifacts."""
COLLECTED = {("argoproj.io", "workflowartifactgctasks", verb) for verb in ("list", "watch")} | {
    ("argoproj.io", "workflowartifactgctasks/status", "patch")
}
"""cmd/argoexec/commands/artifact/delete.go: artifactGC."""
UNKNOWN = ("resource", "data", "suspend", "containerSet", "script")
"""Kinds of template that ask for what they are written for, or that nobody has looked at for this list."""


def asks(spec: Json) -> set[Right]:
    """What argoexec asks the API server for while the templates of a workflow run. Raises AssertionError for a kind of template
    that is not looked at."""
    found: set[Right] = set()
    assert not spec.get("archiveLogs"), "logs are an artifact, of a repository that a ConfigMap names"
    for template in spec["templates"]:
        assert not set(template) & set(UNKNOWN), template["name"]
        found |= REPORT if "container" in template else set()
        found |= AGENT if {"http", "plugin"} & set(template) else set()
        found |= KEYS if any(template.get(side, {}).get("artifacts") for side in ("inputs", "outputs")) else set()
        found |= COLLECTED if template.get("artifactGC") or spec.get("artifactGC") else set()
    return found


def templates() -> Iterator[tuple[str, Json]]:
    """(role's objects' name, spec) of all that is compiled here, and of the golden files."""
    more = {"times": Times(("0 3 * * *",), "Europe/Berlin"), "notice": Notice(f"curl@sha256:{'a' * 64}", "notice")}
    for one in (flow(), flow("curate", **more), flow("decoder")):
        made = emit(one, SETTINGS)
        yield one.name, {"objects": made["argoexec.yaml"], "spec": made["workflowtemplate.yaml"][0]["spec"]}
    for file in sorted(MANIFESTS.rglob("workflowtemplate.yaml")):
        objects = list(yaml.safe_load_all((file.parent / "argoexec.yaml").read_text()))
        yield str(file), {"objects": objects, "spec": yaml.safe_load(file.read_text())["spec"]}


def test_argoexec_may_do_what_it_asks_for_and_no_more() -> None:
    several = list(templates())
    assert len(several) > 3
    for name, found in several:
        by_kind = {one["kind"]: one for one in found["objects"]}
        given, used = rights(by_kind["Role"]), asks(found["spec"])
        assert sorted(used - given) == [], f"{name}: asked for, and not given"
        assert sorted(given - used) == [], f"{name}: given, and never asked for"
        account = found["spec"]["executor"]["serviceAccountName"]
        assert by_kind["RoleBinding"]["subjects"][0]["name"] == by_kind["ServiceAccount"]["metadata"]["name"] == account
        assert by_kind["RoleBinding"]["roleRef"]["name"] == by_kind["Role"]["metadata"]["name"]
        token = by_kind["Secret"]  # workflow/controller/workflowpod.go: the token of executor.serviceAccountName
        assert token["metadata"]["annotations"]["kubernetes.io/service-account.name"] == account


@pytest.mark.parametrize(
    "more", [{"http": {"url": "https://x"}}, {"plugin": {}}, {"outputs": {"artifacts": [{"name": "a"}]}}]
)
def test_a_template_that_would_ask_for_more_is_noticed(more: Json) -> None:
    made = emit(flow("decoder"), SETTINGS)
    spec = made["workflowtemplate.yaml"][0]["spec"]
    (role,) = [one for one in made["argoexec.yaml"] if one["kind"] == "Role"]
    assert asks({**spec, "templates": [*spec["templates"], {"name": "more", **more}]}) - rights(role)


def test_what_several_compiled_folders_share_is_the_same_object_and_no_second_one() -> None:
    objects = [
        one for each in (flow(), flow("decoder")) for several in emit(each, SETTINGS).values() for one in several
    ]
    assert [fault for fault in lint(objects, SETTINGS) if fault.rule == "twice"] == []
    other = ClusterSettings.parse({**SETTINGS.resolved(), "queue": "elsewhere"})
    changed = [{**one, "rules": []} if one["kind"] == "Role" else one for one in emit(flow(), other)["argoexec.yaml"]]
    assert [fault.rule for fault in lint([*objects, *changed], SETTINGS) if fault.rule == "twice"] == ["twice"]


def test_nobody_else_has_an_account_for_it() -> None:
    """It comes with what is compiled: one in the manifests would serve no pod."""
    base = [one for file in (MANIFESTS / "base").rglob("*.yaml") for one in yaml.safe_load_all(file.read_text()) if one]
    accounts = {one["metadata"]["name"] for one in base if one.get("kind") == "ServiceAccount"}
    assert accounts == {"default", "planner", "launcher", "stage", "exporter", "captioning", "scaler", "retention"}
    granted = [one for one in base if "Role" in one.get("kind", "") and "argoproj.io" in str(one.get("rules"))]
    assert granted == []
