"""A dataset in the store as the beginning of a pipeline: which one is meant, and which of its makers are there still.

What the nodes after a dataset read besides it (what simulation knows for the evaluation, the tables of the curation for the
page, the mixture of classify_clips) is found in the dataset's lineage, so that a run that starts here has the same keys as
the run that made the dataset and went on.
"""

import dataclasses
from typing import TYPE_CHECKING

from pipelines.stages import STAGES
from wfm.artifacts.address import KEY_PATTERN
from wfm.errors import ConfigError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Store

DATASET_NODE = "write_shards"
SIMULATION_NODE = "simulate_videos"


@dataclasses.dataclass(frozen=True)
class Beginning:
    """What a pipeline that starts from a dataset is given."""

    given: dict[str, str]
    "Node -> key: the dataset, and the artifacts behind it."
    name: str
    "What is made of it is called so: the dataset's name, or the beginning of its key."
    lost: dict[str, str]
    "Node -> why its artifact behind the dataset cannot be read."


def begin(reference: str, store: "Store") -> Beginning:
    """Start from NAME, NAME@ALIAS, dataset/NAME[@ALIAS], a key, or 8 or more of its first digits.

    Raises `InputError` or `ConfigError` for what is not in the store, was invalidated, or is no dataset.
    """
    try:
        key, name = _find(reference, store)
        kind = store.artifact(key).kind
    except InputError as error:
        raise ConfigError(f"--dataset {reference!r}: {error}") from None
    if kind != "dataset":
        names = [promotion.reference for promotion in store.names.list("dataset")]
        raise ConfigError(
            f"--dataset {reference!r} is of kind {kind!r}, a dataset is needed. "
            f"Choices: {', '.join(names[:12]) or 'none has a name yet; wfm run curate makes one'}"
        )
    given = {DATASET_NODE: key}
    lost: dict[str, str] = {}
    made_by = {row.output: row.name for row in STAGES.values()}
    ancestors = {ancestor.key: ancestor for ancestor in store.lineage(key)}  # the nearest first
    for ancestor in ancestors.values():
        if STAGES.get(ancestor.stage) is not None and ancestor.kind == STAGES[ancestor.stage].output:
            given.setdefault(ancestor.stage, ancestor.key)
            for name_of, key_of in ancestor.inputs.items():
                if ancestors[key_of].problem:
                    node = made_by.get(STAGES[ancestor.stage].kind_of(name_of).rstrip("?"), name_of)
                    lost.setdefault(node, ancestors[key_of].problem)
    return Beginning(given, name, lost)


def _find(reference: str, store: "Store") -> tuple[str, str]:
    """The key that is meant, and what to call its offspring."""
    if KEY_PATTERN.fullmatch(reference):
        return reference, reference[:12]
    kind, slash, rest = reference.rpartition("/")
    named = f"{kind or 'dataset'}{slash or '/'}{rest}"
    name = rest.partition("@")[0]
    try:
        return store.resolve(named), name
    except InputError:
        if slash or not _may_be_digits(reference):
            raise
    key = store.resolve(reference)  # no name, so the beginning of a key
    return key, key[:12]


def _may_be_digits(reference: str) -> bool:
    return len(reference) >= 8 and set(reference) <= set("0123456789abcdef")
