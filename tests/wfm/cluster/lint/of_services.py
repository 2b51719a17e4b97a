"""Mutations of servers, rights, network policies, budgets, and what quota is made of."""

from typing import Any

from tests.wfm.cluster.lint.change import Mutation, add, drop, more, put
from tests.wfm.cluster.lint.of_jobs import LABELS, m
from wfm.cluster.names import LABEL_ROLE
from wfm.cluster.pod import QUEUE, WORKLOAD_PRIORITY

MAIN = "spec template spec containers 0"
EXPORTER, CAPTIONER, SERVICE, BUDGET, NAMESPACE, ACCOUNT, ROLE, BINDING, SHUT, CAPTIONS, STORE, PRIORITY = range(12)
QUEUE_BUDGET, FLAVOR, COHORT = 5, 6, 7
_BUDGETED = "spec selector matchLabels"


def s(rule: str, what: str, *changes: Any, valid: bool = True) -> Mutation:
    return m(rule, "services", what, *changes, valid=valid)


SERVERS = [
    s("probe", "an exporter that nobody asks", drop(f"{MAIN} readinessProbe")),
    s("probe", "a model server that nobody asks", drop(f"{MAIN} readinessProbe", of=CAPTIONER)),
    s("probe", "ended while it loads", drop(f"{MAIN} startupProbe", of=CAPTIONER)),
    s("probe", "a minute to load", put(f"{MAIN} startupProbe failureThreshold", 6, of=CAPTIONER)),
    s("server", "holds a device when nobody needs it", put("spec replicas", 1, of=CAPTIONER)),
    s("server", "says no number", drop("spec replicas", of=CAPTIONER)),
    s("server", "two exporters", put("spec replicas", 2)),
    s("server", "a second device at a rollout", drop("spec strategy", of=CAPTIONER)),
    s("queue-label", "devices past the queue", drop(f"{LABELS} {QUEUE}", of=CAPTIONER),
      drop(f"{LABELS} {WORKLOAD_PRIORITY}", of=CAPTIONER)),
    s("queue-label", "an exporter with a device",
      *(put(f"{MAIN} resources {kind} nvidia.com/gpu", "1") for kind in ("requests", "limits")),
      put("spec strategy", {"type": "Recreate"})),
    s("priority-label", "no priority", drop(f"{LABELS} {WORKLOAD_PRIORITY}", of=CAPTIONER)),
    s("queue-place", "an exporter in the queue", put(f"{LABELS} {QUEUE}", "research")),
    s("api-token", "an exporter with a token", drop("spec template spec automountServiceAccountToken")),
    s("api-token", "a model server with a token", put("spec template spec automountServiceAccountToken", True, of=CAPTIONER)),
    s("device-name", "another vendor's", *(
        change for kind in ("requests", "limits")
        for change in (drop(f"{MAIN} resources {kind} nvidia.com/gpu", of=CAPTIONER),
                       put(f"{MAIN} resources {kind} amd.com/gpu", "1", of=CAPTIONER))
    )),
    s("shared-memory", "a model server without /dev/shm", drop(f"{MAIN} volumeMounts 1", of=CAPTIONER)),
    s("image-digest", "the newest", put(f"{MAIN} image", "vllm/vllm-openai:latest", of=CAPTIONER)),
    s("pod-role", "a model server that says nothing", drop(f"spec template metadata labels {LABEL_ROLE}", of=CAPTIONER),
      drop(f"{LABELS} {QUEUE}", of=CAPTIONER), drop(f"{LABELS} {WORKLOAD_PRIORITY}", of=CAPTIONER)),
    *(s("service", kind, put("spec type", kind, of=SERVICE)) for kind in ("LoadBalancer", "NodePort")),
    s("service", "traffic of others", put("spec externalIPs", ["203.0.113.7"], of=SERVICE)),
    s("service", "leads nowhere", put("spec selector", {"app.kubernetes.io/name": "caption"}, of=SERVICE)),
]  # fmt: skip
_RBAC = "rbac.authorization.k8s.io"
_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}


def _rule(resource: str, *verbs: str, group: str = "") -> Any:
    return add("rules", {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}, of=ROLE)


RIGHTS = [
    *(s("role", f"all {name}", put(f"rules 0 {name}", ["*"], of=ROLE)) for name in ("apiGroups", "resources", "verbs")),
    s("role", "secrets", add("rules", _SECRETS, of=ROLE)),
    *(s("role", resource, _rule(resource, "create")) for resource in ("pods/exec", "pods/attach", "serviceaccounts/token",
      "*/exec", "*/token", "pods/portforward")),
    *(s("role", verb, _rule("deployments", verb, group="apps")) for verb in ("escalate", "bind", "impersonate")),
    s("role", "bindings", _rule("rolebindings", "create", group="rbac.authorization.k8s.io")),
    s("binding", "the default account", put("subjects 0 name", "default", of=BINDING)),
    s("binding", "of the whole cluster, to the default account", more({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "wfm"}],
    })),
    *(
        s("binding", crowd, put("subjects", [{"kind": "Group", "apiGroup": _RBAC, "name": crowd}], of=BINDING))
        for crowd in ("system:authenticated", "system:serviceaccounts", "system:serviceaccounts:wfm", "system:masters")
    ),
    s("binding", "no such role", put("roleRef name", "scalers", of=BINDING)),
    s("binding", "no such account", put("subjects 0 name", "scalers", of=BINDING)),
    *(s("binding", name, put("roleRef", {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name}, of=BINDING))
      for name in ("cluster-admin", "admin", "edit", "system:node")),
    s("admission", "no standard", drop(f"{LABELS} pod-security.kubernetes.io/enforce", of=NAMESPACE)),
    s("admission", "root of its machine", put(f"{LABELS} pod-security.kubernetes.io/enforce", "privileged", of=NAMESPACE)),
    s("admission", "everybody's priority", put("globalDefault", True, of=PRIORITY)),
    s("literal-secret", "a Secret in the manifests", more({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store", "namespace": "wfm"}, "stringData": {"id": "abcdef"},
    })),
]  # fmt: skip
_ALL_PODS = {"namespaceSelector": {}}
NETWORK = [
    s("network", "everybody in", put("spec ingress", [{}], of=CAPTIONS)),
    s("network", "everybody in, at a port", drop("spec ingress 0 from", of=CAPTIONS)),
    s("network", "no peers", put("spec ingress 0 from", [], of=CAPTIONS)),
    s("network", "every namespace", put("spec ingress 0 from", [_ALL_PODS], of=CAPTIONS)),
    s("network", "every address", put("spec ingress 0 from", [{"ipBlock": {"cidr": "0.0.0.0/0"}}], of=CAPTIONS)),
    s("network", "out of every pod", put("spec podSelector", {}, of=STORE)),
    s("network", "every pod of the namespace", put("spec ingress 0 from", [{"podSelector": {}}], of=CAPTIONS)),
    s("network", "out to every pod too", drop("spec egress 0 to", of=STORE)),
    s("network", "roles that are not there", put("spec podSelector", {"matchExpressions": [
        {"key": LABEL_ROLE, "operator": "In", "values": ["stage", "launch"]}]}, of=STORE)),
    s("network", "out to everywhere", put("spec egress", [{}], of=STORE)),
    s("network", "out to every address", drop("spec egress 0 ports", of=STORE)),
    s("network", "rules that say nothing", put("spec policyTypes", ["Ingress"], of=STORE), put("spec ingress", [], of=STORE)),
    s("network", "pods that are not there", put(f"spec podSelector matchLabels {LABEL_ROLE}", "stages", of=STORE)),
    s("network", "peers that are not there",
      put(f"spec ingress 0 from 0 podSelector matchLabels {LABEL_ROLE}", "captioner", of=CAPTIONS)),
    s("default-deny", "opened by a rule", put("spec podSelector", {"matchLabels": {LABEL_ROLE: "stage"}}, of=SHUT)),
    s("default-deny", "out is open", put("spec policyTypes", ["Ingress"], of=SHUT)),
]  # fmt: skip
BUDGETS = [
    s("disruption-budget", "none may go", put("spec maxUnavailable", 0, of=BUDGET)),
    s("disruption-budget", "of stages", put("spec selector", {"matchLabels": {LABEL_ROLE: "stage"}}, of=BUDGET)),
    m("disruption-budget", "ranges", "of a kind without a scale", more({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "ranges", "namespace": "wfm"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"wfm.dev/node": "encode_latents"}}},
    })),
    s("disruption-budget", "launchers, one must stay", put("spec", {
        "minAvailable": 1, "selector": {"matchLabels": {LABEL_ROLE: "launcher"}}}, of=BUDGET)),
    m("disruption-budget", "workflow", "of a workflow, one may go", put("spec podDisruptionBudget", {"maxUnavailable": 1})),
    m("disruption-budget", "workflow", "of a workflow, one must stay", put("spec podDisruptionBudget", {"minAvailable": 1})),
]  # fmt: skip
QUOTA = [
    m("object", "queue", "an old version", put("apiVersion", "kueue.x-k8s.io/v1beta1", of=1)),
    m("unknown-field", "queue", "of an older version", put("spec cohort", "all", of=1), valid=False),
    m("flavor", "queue", "any machine", put("spec nodeLabels", {}, of=FLAVOR)),
    m("flavor", "queue", "says nothing", put("spec", {}, of=FLAVOR)),
    m("flavor", "queue", "no such flavour", *(
        put("spec resourceGroups 0 flavors 0 name", "h200", of=place) for place in (1, 2)
    )),
    m("cohort", "queue", "a circle", put("spec parentName", "all", of=COHORT + 1)),
    m("cohort", "queue", "its own parent", put("spec parentName", "all", of=COHORT)),
    m("cohort", "queue", "no such parent", put("spec parentName", "compony", of=COHORT)),
    m("cohort", "queue", "no such cohort", *(put("spec cohortName", "al", of=place) for place in (1, 2))),
]  # fmt: skip
ALL: list[Mutation] = [*SERVERS, *RIGHTS, *NETWORK, *BUDGETS, *QUOTA]
