"""What an earlier deduplication found, so that only clips which are new to it are compared.

An earlier run counts where it compared as this one does: other settings, or embeddings made otherwise, and its pairs would mean
something else.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wfm.config import Config
from wfm.curation.rows import DuplicatePair
from wfm.errors import InputError
from wfm.parts.tables import read_folder

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store


@dataclasses.dataclass(frozen=True)
class EarlierRun:
    """What a run before found: its pairs, and the clips it compared by id with the sha256 of their bytes."""

    pairs: Sequence[DuplicatePair]
    clips: Mapping[str, str]


def duplicates_of(store: "Store", dataset: "Artifact") -> str:
    """Key of the duplicates a data set was selected with. Raises `InputError` where it was made otherwise (an import)."""
    of = dataset
    while "dataset" in of.manifest.inputs:  # clips were excluded from another
        of = store.artifact(of.manifest.inputs["dataset"])
    selection = of.manifest.inputs.get("selection")
    if selection is None:
        raise InputError(f"data set {dataset.key[:12]} was not selected here, so its clips were never compared")
    return store.artifact(selection).manifest.inputs["duplicates"]


def find_earlier(store: "Store", against: str) -> "Artifact":
    """The duplicates that ``against`` names: themselves (a key), or the data set made with them. Raises `InputError`."""
    try:
        found = store.artifact(store.resolve(against))
    except InputError as error:
        raise InputError(f"dedup_clips.against = {against!r}: {error}") from None
    if found.kind == "dataset":
        found = store.artifact(duplicates_of(store, found))
    if found.kind != "duplicates":
        raise InputError(f"against = {against!r} is of kind {found.kind!r}: give duplicates or a dataset")
    return found


def read_earlier(store: "Store", against: str, config: Config, embeddings: "Artifact", *, look: bool) -> EarlierRun:
    """What it found, by signatures too where ``look``. Raises `InputError` where it compared otherwise than ``config`` does, or
    embeddings that were made otherwise."""
    earlier = find_earlier(store, against)
    before = type(config).parse(earlier.manifest.config).what()
    for name, value in config.what().items():
        if name != "against" and before[name] != value:
            raise InputError(
                f"against = {against!r} compared with {name} = {before[name]!r}, this run has {value!r}: "
                "set the same, or leave out `against` to compare all again"
            )
    compared = store.artifact(earlier.manifest.inputs["embeddings"])
    for name in ("model", "weights_sha256", "frames", "side"):
        old, new = (of.manifest.config.get(name) for of in (compared, embeddings))
        if old != new:
            raise InputError(
                f"against = {against!r} compared embeddings made with {name} = {old!r}, this run has {new!r}: "
                "leave out `against` to compare all again"
            )
    pairs = [pair for part in read_folder(earlier, "pairs", DuplicatePair).values() for pair in part]
    clips = _hashes(compared, "embeddings")
    if look:  # a clip that only had an embedding was not looked at
        signed = _hashes(compared, "signatures")
        clips = {name: sha for name, sha in clips.items() if signed.get(name) == sha}
    return EarlierRun(pairs=pairs, clips=clips)


def _hashes(artifact: "Artifact", table: str) -> dict[str, str]:
    found = artifact.table(table, ["clip_id", "clip_sha256"])
    return dict(zip(found.column("clip_id").to_pylist(), found.column("clip_sha256").to_pylist(), strict=True))
