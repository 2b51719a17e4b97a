"""Who may do what, and who reaches whom: roles and their bindings, network policies, services, namespaces."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.seen import Seen, Thing, at, rows, table, word, words
from wfm.cluster.names import LABEL_ROLE, ROLES

_ALL_OF_THEM = ("cluster-admin", "admin", "edit")
_LADDERS = ("escalate", "bind", "impersonate")
"""Verbs by which an account gives itself more."""
_DOORS = {
    **dict.fromkeys(("secrets", "secrets/*"), "keys of the store come into a pod by reference"),
    **dict.fromkeys(
        ("pods/exec", "pods/attach", "pods/ephemeralcontainers", "pods/portforward", "pods/proxy", "nodes/proxy"),
        "whoever has it runs in any pod, or speaks as one",
    ),
    "serviceaccounts/token": "whoever has it is any account",
    **dict.fromkeys(
        ("roles", "rolebindings", "clusterroles", "clusterrolebindings"), "whoever writes these may do anything"
    ),
}
_CROWDS = ("system:authenticated", "system:unauthenticated", "system:masters", "system:anonymous", "system:nodes")
_EVERYWHERE = ("0.0.0.0/0", "::/0")
_SELECTORS = ("namespaceSelector", "podSelector")
_NAMES_PORT = 53
"""Of the cluster's DNS, which every pod asks."""
_READING = {"get", "list", "watch"}


@rule("role", "an account may do what it needs, by name")
def role(seen: Seen) -> Iterator[Found]:
    """No ``*``, no secrets, no way into other pods or to more rights."""
    for thing in seen.of("Role", "ClusterRole"):
        for place, each in rows(thing.content, "rules"):
            for name in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
                if "*" in words(each, name):
                    says = "name them one by one: a launcher needs jobs of its kinds and pods, a stage nothing"
                    yield Found(thing.where(f"rules.{place}.{name}"), each[name], says)
            ladders = sorted(set(words(each, "verbs")) & set(_LADDERS))
            if ladders:
                says = f"{', '.join(ladders)} gives an account more than it was given: leave it out"
                yield Found(thing.where(f"rules.{place}.verbs"), each["verbs"], says)
            for resource in words(each, "resources"):
                only_reads = resource.endswith(("roles", "rolebindings")) and set(words(each, "verbs")) <= _READING
                # */exec is that of whatever has one
                doors = [door for door in _DOORS if resource == door or resource == f"*/{door.partition('/')[2]}"]
                if doors and not only_reads:
                    yield Found(thing.where(f"rules.{place}.resources"), resource, f"{_DOORS[doors[0]]}: leave it out")


@rule("binding", "rights are given to an account that is named, and to it alone")
def binding(seen: Seen) -> Iterator[Found]:
    """Not to the default account, nor to a crowd; a Role of our own; accounts and roles that are there."""
    roles = {(thing.kind, thing.name) for thing in seen.of("Role", "ClusterRole")}
    accounts = {thing.name for thing in seen.of("ServiceAccount")}
    for thing in seen.of("RoleBinding", "ClusterRoleBinding"):
        kind, name = word(thing.content, "roleRef.kind"), word(thing.content, "roleRef.name")
        if name in _ALL_OF_THEM or name.startswith("system:"):
            yield Found(thing.where("roleRef.name"), name, "it may do far more than ours needs: a Role of its own")
        elif kind == "Role" and any(known == "Role" for known, _ in roles) and (kind, name) not in roles:
            choices = ", ".join(sorted(name for known, name in roles if known == "Role"))
            yield Found(thing.where("roleRef.name"), name, f"there is no such Role here; choices: {choices}")
        for place, subject in rows(thing.content, "subjects"):
            who, path = word(subject, "name"), f"subjects.{place}.name"
            if word(subject, "kind") == "ServiceAccount" and who in ("", "default"):
                says = "every pod without an account of its own would have these rights: name an account"
                yield Found(thing.where(path), who or None, says)
            elif who in _CROWDS or who.startswith("system:serviceaccounts"):
                yield Found(thing.where(path), who, "that is a crowd: name one account")
            elif word(subject, "kind") == "ServiceAccount" and accounts and who not in accounts:
                says = f"there is no such ServiceAccount here; choices: {', '.join(sorted(accounts))}"
                yield Found(thing.where(path), who, says)


@rule("network", "who talks to whom is named")
def network(seen: Seen) -> Iterator[Found]:
    """No policy that lets everybody in or out; roles that exist; none whose rules its types leave out."""
    for thing in seen.of("NetworkPolicy"):
        spec = table(thing.content, "spec")
        types = words(spec, "policyTypes")
        for direction, kind, peer in (("ingress", "Ingress", "from"), ("egress", "Egress", "to")):
            if types and spec.get(direction) and kind not in types:
                says = f"{kind} is not among them, so these rules say nothing and everything goes: name it"
                yield Found(thing.where("spec.policyTypes"), types, says)
            for place, each in rows(spec, direction):
                yield from _open(thing, direction, f"spec.{direction}.{place}", each, peer)
        everyone = not any(table(spec, "podSelector.matchLabels")) and not rows(spec, "podSelector.matchExpressions")
        ports = [at(port, "port") for _, each in rows(spec, "egress") for _, port in rows(each, "ports")]
        if everyone and (
            rows(spec, "ingress") or (rows(spec, "egress") and set(map(str, ports)) != {str(_NAMES_PORT)})
        ):
            says = f"this opens every pod: name those that are meant, such as {LABEL_ROLE}: stage"
            yield Found(thing.where("spec.podSelector"), spec.get("podSelector"), says)
        for path, selector in _selectors(spec):
            told = [table(selector, "matchLabels").get(LABEL_ROLE)]
            for _, each in rows(selector, "matchExpressions"):
                told += words(each, "values") if word(each, "key") == LABEL_ROLE else []
            for value in told:
                if value is not None and value not in ROLES:
                    says = f"no pod has this role, so nobody is meant; choices: {', '.join(ROLES)}"
                    yield Found(thing.where(f"{path}[{LABEL_ROLE}]"), value, says)


def _open(thing: Thing, direction: str, path: str, each: dict[str, Any], peer: str) -> Iterator[Found]:
    peers, ports = rows(each, peer), rows(each, "ports")
    if not peers:
        says = f"it lets everybody {'in' if direction == 'ingress' else 'out to everywhere'}: name peers under {peer}"
        yield Found(thing.where(f"{path}.{peer}"), each, says)
    for place, one in peers:
        cidr = word(one, "ipBlock.cidr")
        named = any(table(one, f"{each}.matchLabels") or rows(one, f"{each}.matchExpressions") for each in _SELECTORS)
        whole_cluster = not named and not cidr
        if (cidr in _EVERYWHERE and (direction == "ingress" or not ports)) or (
            direction == "ingress" and whole_cluster
        ):
            says = "that is everybody: name a namespace, pods or a network, and for what lies outside the ports too"
            yield Found(thing.where(f"{path}.{peer}.{place}"), one, says)


def _selectors(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, selector) of each selector of pods in a policy."""
    yield "spec.podSelector", table(spec, "podSelector")
    for direction, peer in (("ingress", "from"), ("egress", "to")):
        for place, each in rows(spec, direction):
            for number, one in rows(each, peer):
                yield f"spec.{direction}.{place}.{peer}.{number}.podSelector", table(one, "podSelector")


@rule("default-deny", "what no policy names is shut")
def default_deny(seen: Seen) -> Iterator[Found]:
    """Where a namespace has several policies, one of them shuts every pod in both directions."""
    by_namespace: dict[str, list[Thing]] = defaultdict(list)
    for thing in seen.of("NetworkPolicy"):
        by_namespace[thing.namespace].append(thing)
    for namespace, several in by_namespace.items():
        for direction in ("Ingress", "Egress"):
            if len(several) > 1 and not any(_shuts(each, direction) for each in several):
                says = f"a pod that none of them selects is open: add one with podSelector {{}} and policyTypes [{direction}]"
                yield Found(several[0].where("spec.podSelector"), f"{len(several)} policies of {namespace}", says)


def _shuts(thing: Thing, direction: str) -> bool:
    spec = table(thing.content, "spec")
    everyone = isinstance(spec.get("podSelector"), dict) and not table(spec, "podSelector")
    return everyone and direction in words(spec, "policyTypes") and not rows(spec, direction.lower())


@rule("service", "a service is for the cluster alone, and finds its pods")
def service(seen: Seen) -> Iterator[Found]:
    """``ClusterIP``: metrics and a model server have no password. Its selector fits pods that are there."""
    pods = [table(pod.metadata, "labels") for pod in seen.pods if pod.owner.kind == "Deployment"]
    for thing in seen.of("Service"):
        kind = word(thing.content, "spec.type")
        if kind not in ("", "ClusterIP"):
            says = "ClusterIP: nobody outside has to reach it, and it asks nobody for a password"
            yield Found(thing.where("spec.type"), kind, says)
        if at(thing.content, "spec.externalIPs"):
            says = "traffic of others would go here: leave it out"
            yield Found(thing.where("spec.externalIPs"), at(thing.content, "spec.externalIPs"), says)
        wanted = table(thing.content, "spec.selector")
        if wanted and pods and not any(wanted.items() <= labels.items() for labels in pods):
            says = "no Deployment here has such pods, so it leads nowhere: name labels of theirs"
            yield Found(thing.where("spec.selector"), wanted, says)


@rule("admission", "a namespace, and a class of priority, changes nothing for others")
def admission(seen: Seen) -> Iterator[Found]:
    """Pods are held to a standard of security; no priority becomes everybody's."""
    label = "pod-security.kubernetes.io/enforce"
    for thing in seen.of("Namespace"):
        given = table(thing.content, "metadata.labels").get(label)
        if given not in ("restricted", "baseline"):
            says = "restricted (or baseline): by default every pod may be root of its machine"
            yield Found(thing.where(f"metadata.labels[{label}]"), given, says)
    for thing in seen.of("PriorityClass", "WorkloadPriorityClass"):
        if thing.content.get("globalDefault"):
            says = "every pod of the cluster that names none would get it: leave it out"
            yield Found(thing.where("globalDefault"), thing.content["globalDefault"], says)
