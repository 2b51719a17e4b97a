"""Labels against selectors, taints against tolerations, as the scheduler of Kubernetes and Kueue match them."""

from collections.abc import Mapping, Sequence
from typing import Any

from wfm.cluster.lint.quantity import whole
from wfm.cluster.lint.seen import rows, table, word, words

KEEPS_OUT = ("NoSchedule", "NoExecute")
"""Effects that keep a pod off a machine; ``PreferNoSchedule`` does not, nor for Kueue (concepts/resource_flavor.md)."""


def untolerated(taints: Sequence[Mapping[str, Any]], tolerations: Sequence[Mapping[str, Any]]) -> str:
    """The first taint, as ``key=value:effect``, that nothing bears; empty where all are borne."""
    for taint in taints:
        if word(taint, "effect") in KEEPS_OUT and not any(_bears(each, taint) for each in tolerations):
            value = word(taint, "value")
            return f"{word(taint, 'key')}{'=' if value else ''}{value}:{word(taint, 'effect')}"
    return ""


def _bears(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    exists = word(toleration, "operator") == "Exists"
    if word(toleration, "effect") not in ("", word(taint, "effect")):
        return False
    if not word(toleration, "key"):
        return exists
    return word(toleration, "key") == word(taint, "key") and (
        exists or word(toleration, "value") == word(taint, "value")
    )


def selects(selector: Any, labels: Mapping[str, str]) -> bool:
    """A label selector of an API object: all of matchLabels and matchExpressions; an empty one selects everything."""
    wanted = table(selector, "matchLabels")
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        holds(each, labels) for _, each in rows(selector, "matchExpressions")
    )


def holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """One expression over labels: In, NotIn, Exists, DoesNotExist, Gt, Lt."""
    found = labels.get(word(requirement, "key"))
    operator, values = word(requirement, "operator"), words(requirement, "values")
    if operator == "NotIn":
        return found not in values
    if operator == "DoesNotExist":
        return found is None
    if operator in ("Gt", "Lt"):
        here, there = whole(found), whole(values[0] if values else None)
        return here is not None and there is not None and (here > there if operator == "Gt" else here < there)
    return found is not None and (operator == "Exists" or found in values)


def node_refusal(spec: Mapping[str, Any], labels: Mapping[str, str], keys: set[str] | None = None) -> str:
    """Why a pod's nodeSelector or required nodeAffinity does not match labels; empty where both do.

    ``keys``: only what is said of these labels counts. So Kueue holds a pod against a flavour, of whose machines it knows no
    other labels; a term of which nothing is left matches (pkg/scheduler/flavorassigner/flavorassigner.go: flavorSelector)."""
    for key, value in table(spec, "nodeSelector").items():
        if (keys is None or key in keys) and labels.get(key) != value:
            return f"the pods ask for machines with {key}={value}"
    terms = rows(spec, "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms")
    kept = []
    for _, term in terms:
        wanted = [each for _, each in rows(term, "matchExpressions") if keys is None or word(each, "key") in keys]
        if keys is not None and not wanted:
            return ""
        kept.append(wanted)
    if kept and not any(wanted and all(holds(each, labels) for each in wanted) for wanted in kept):
        said = sorted({word(each, "key") for wanted in kept for each in wanted})
        return f"the pods' node affinity ({', '.join(said)}) does not match"
    return ""
