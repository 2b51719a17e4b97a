"""What a listing is made of: one row for each file outside, and which files beside a video go with it.

Sidecars are found by stem: ``x.actions.parquet`` and ``x.attributes.json`` beside ``x.mp4``, or ``../actions/x.parquet`` and
``../attributes/x.json``.
"""

import dataclasses
import os
from collections.abc import Callable, Collection
from typing import Any

SIDECARS = (("actions", ".actions.parquet", ".parquet"), ("attributes", ".attributes.json", ".json"))
"""(kind, ending beside the video, ending in the sibling folder of that name)."""

LISTS = (".txt", ".jsonl", ".parquet")
"""Endings of a list of names."""


@dataclasses.dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that ``--videos`` names. ``problem`` says why it may not even be opened (``code: words``), or is empty."""

    source: str
    name: str
    size: int = 0
    stamp: str = ""
    "Changes when the bytes may have: time of change, etag, or sha256."
    problem: str = ""
    actions: str = ""
    "Source of the actions sidecar, or empty."
    attributes: str = ""
    sidecar_stamp: str = ""
    session_id: str = ""
    view: str = ""
    licence: str = ""
    "As a list states it; likewise the three that follow."
    consent: str = ""
    rights_holder: str = ""
    url: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, empty ones left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SourceFile":
        """Back from `to_json`."""
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files in order of source, and how many were left aside by kind (``hidden``, ``other_ending``)."""

    files: tuple[SourceFile, ...]
    aside: dict[str, int] = dataclasses.field(default_factory=dict)

    def without_endings(self, endings: Collection[str]) -> "Listing":
        """Without the files that are called so, which are counted as left aside."""
        kept = tuple(file for file in self.files if os.path.splitext(file.name)[1].lower() not in endings)
        left = len(self.files) - len(kept)
        aside = {**self.aside, "other_ending": self.aside.get("other_ending", 0) + left} if left else self.aside
        return Listing(kept, aside)

    def first(self, limit: int) -> "Listing":
        """At most so many files; 0: all."""
        return dataclasses.replace(self, files=self.files[:limit]) if limit else self

    def to_json(self) -> dict[str, Any]:
        """Plain values: what enters a key. What was left aside does not: a note beside the videos changes no data set."""
        return {"files": [file.to_json() for file in self.files]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Listing":
        """Back from `to_json`."""
        return cls(tuple(SourceFile.from_json(file) for file in values["files"]))


def is_sidecar_name(folder: str, name: str) -> bool:
    """Whether a file accompanies a video."""
    last = os.path.basename(folder)
    return any(name.endswith(beside) or (last == kind and name.endswith(end)) for kind, beside, end in SIDECARS)


def find_sidecars(
    path: str, exists: Callable[[str], bool], stamp: Callable[[str], str], *, any_json: bool = False
) -> tuple[dict[str, Any], str]:
    """({kind: path of the sidecar}, their stamps) of the video at ``path``; ``any_json``: x.json goes with x.mp4."""
    folder, slash, name = path.rpartition("/")
    stem = os.path.splitext(name)[0]
    above = folder.rpartition("/")
    found: dict[str, Any] = {}
    for kind, beside, ending in SIDECARS:
        sibling = f"{above[0]}{above[1]}{kind}/{stem}{ending}"
        plain = (f"{folder}{slash}{stem}.json",) if any_json and kind == "attributes" else ()
        for candidate in (f"{folder}{slash}{stem}{beside}", sibling, *plain):
            if exists(candidate):
                found[kind] = candidate
                break
    return found, ";".join(stamp(sidecar) for sidecar in found.values())
