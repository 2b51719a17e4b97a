"""The overlays of `manifests/`: golden files, and what holds of each object whatever a golden file says."""

from typing import Any

import pytest

from tests.cluster import strict
from tests.cluster.strict import pods
from tests.manifests.overlays import OVERLAYS, RENDERED, objects, of_kind, render
from wfm.cluster.names import ROLES

pytestmark = pytest.mark.parametrize("overlay", OVERLAYS)


def test_what_is_rendered_is_what_is_kept(overlay: str) -> None:
    kept = RENDERED / f"{overlay}.yaml"
    assert kept.read_text() == render(overlay), "renew it: python -m tests.manifests.overlays"


def test_every_object_is_taken_as_it_is(overlay: str) -> None:
    found = objects(overlay)
    assert len(found) > 10
    assert [(one["kind"], one["metadata"]["name"], faults) for one in found if (faults := strict.faults(one))] == []


def test_everything_is_in_one_namespace_that_takes_no_loose_pods(overlay: str) -> None:
    (namespace,) = of_kind(overlay, "Namespace").values()
    name = namespace["metadata"]["name"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    cluster_wide = ("Namespace", "ClusterQueue", "Cohort", "ResourceFlavor", "WorkloadPriorityClass", "Topology",
                    "PriorityClass")  # fmt: skip
    for one in objects(overlay):
        assert one["kind"] in cluster_wide or one["metadata"].get("namespace") == name, one["metadata"]["name"]
    for binding in of_kind(overlay, "RoleBinding").values():
        assert {subject["namespace"] for subject in binding["subjects"]} == {name}


def test_no_secret_stands_in_a_manifest(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == {}


def test_nothing_is_let_in_or_out_that_is_not_named(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    everything = policies["deny-all"]["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        spec = policy["spec"]
        for way, peers in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(way, []):
                assert rule.get(peers), f"{name}: an {way} without {peers} is one for all"
                assert all(peer for peer in rule[peers]), f"{name}: an empty peer is everybody"
            assert (way in spec) == (way.capitalize() in spec["policyTypes"]) or name == "deny-all", name
        assert _roles(spec["podSelector"]) <= set(ROLES), name


def _roles(selector: dict[str, Any]) -> set[str]:
    """Roles that a selector names."""
    found = {value for label, value in selector.get("matchLabels", {}).items() if label == "wfm.dev/role"}
    for one in selector.get("matchExpressions", []):
        if one["key"] == "wfm.dev/role":
            found |= set(one["values"])
    return found


def test_the_api_server_is_reached_by_those_alone_who_may_ask_it(overlay: str) -> None:
    """Those that have a token: launchers. Anybody else reaches 443 outside of the cluster's own addresses only."""
    for name, policy in of_kind(overlay, "NetworkPolicy").items():
        for rule in policy["spec"].get("egress", []):
            blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
            if any(block["cidr"] == "0.0.0.0/0" and "10.0.0.0/8" not in block.get("except", []) for block in blocks):
                assert name in ("api-server", "argoexec", "scaler"), name
    roles = _roles(of_kind(overlay, "NetworkPolicy")["api-server"]["spec"]["podSelector"])
    assert roles == {"launcher", "pipeline"}


def test_accounts_without_a_role_have_no_token(overlay: str) -> None:
    bound = {subject["name"] for binding in of_kind(overlay, "RoleBinding").values() for subject in binding["subjects"]}
    for name, account in of_kind(overlay, "ServiceAccount").items():
        assert (account.get("automountServiceAccountToken") is False) == (name not in bound), name
    assert bound <= set(of_kind(overlay, "ServiceAccount"))


def test_every_pod_runs_as_nobody_from_a_digest(overlay: str) -> None:
    for one in objects(overlay):
        for path, pod in pods(one):
            spec = pod["spec"]
            where = f"{one['kind']} {one['metadata']['name']} {path}"
            assert spec["securityContext"]["runAsNonRoot"] is True, where
            assert spec["serviceAccountName"] in of_kind(overlay, "ServiceAccount"), where
            for container in spec["containers"]:
                assert "@sha256:" in container["image"], where
                assert container["resources"]["limits"]["memory"], where


def test_nothing_keeps_a_node_from_being_drained(overlay: str) -> None:
    """A budget that lets no pod go blocks a drain for ever."""
    for name, budget in of_kind(overlay, "PodDisruptionBudget").items():
        spec = budget["spec"]
        assert "minAvailable" not in spec, name
        assert spec["maxUnavailable"] not in (0, "0%"), name
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow", name
