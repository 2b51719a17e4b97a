"""Evaluations of a published model that were made later: a bundle's bytes never change, its card shows the newest figures.

Only one of the same weights and tokenizer counts, whose futures were drawn as the bundle draws them.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from wfm.artifacts import schema
from wfm.errors import WfmError
from wfm.evaluation.schema import Metrics, read_metrics
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

Evaluations = Mapping[str, list["Artifact"]]
"""Key of what was generated -> its evaluations, newest first."""
KIND = "report"
"""Of the artifact that `evaluate_model` commits (`pipelines/stages.py`)."""
ROLES = ("model", "tokenizer")
_READS_AT_ONCE = 16
_log = get_logger(__name__)


def evaluations_of(store: "Store") -> Evaluations:
    """Every evaluation in a store; what cannot be read, or does not count any more, is passed over."""
    found: dict[str, list[Artifact]] = {}
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        for one in pool.map(lambda key: _artifact(store, key), store.committed_keys()):
            if one is not None and one.kind == KIND and "generated" in one.manifest.inputs:
                found.setdefault(one.manifest.inputs["generated"], []).append(one)
    for each in found.values():
        each.sort(key=lambda one: (one.manifest.created_at, one.key), reverse=True)
    return found


def newest(
    store: "Store", bundle: "Artifact", sampling: Mapping[str, Any], evaluations: Evaluations
) -> "tuple[Artifact, Metrics] | None":
    """The newest evaluation of a bundle's model that was made after the one that it was published with."""
    published = _artifact(store, bundle.manifest.inputs.get("evaluation", ""))
    since = (published or bundle).manifest.created_at
    later = [
        one
        for generated, found in evaluations.items()
        for one in found
        if one.manifest.created_at > since and _is_of(_artifact(store, generated), bundle, sampling)
    ]
    for one in sorted(later, key=lambda one: (one.manifest.created_at, one.key), reverse=True):
        try:
            return one, read_metrics(one.fetch("metrics.json"))
        except (WfmError, OSError) as error:
            _log.warning("a later evaluation of %r, %s, cannot be read: %s", bundle, one.key[:12], error)
    return None


def _is_of(generated: "Artifact | None", bundle: "Artifact", sampling: Mapping[str, Any]) -> bool:
    """Whether these futures are of the bundle's model, drawn as it draws them."""
    if generated is None or any(
        not bundle.manifest.inputs.get(role) or generated.manifest.inputs.get(role) != bundle.manifest.inputs[role]
        for role in ROLES
    ):
        return False
    try:
        card = schema.parse(generated.fetch("card.json").read_bytes(), f"card.json of {generated!r}")
    except (WfmError, OSError) as error:
        _log.warning("whether %r is of the model %r is not known: %s", generated, bundle, error)
        return False
    return isinstance(card, dict) and card.get("sampling") == dict(sampling)


def _artifact(store: "Store", key: str) -> "Artifact | None":
    try:
        return store.artifact(key) if key else None
    except WfmError:
        return None
