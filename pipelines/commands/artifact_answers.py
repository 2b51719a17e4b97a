"""``--json`` of ``wfm artifacts``: what each command answers, as published models.

Times are UTC in ISO 8601, sizes bytes, keys whole.
"""

from typing import TYPE_CHECKING, Any

import pydantic

from pipelines.commands.console import moment

if TYPE_CHECKING:
    from wfm.artifacts.names import Promotion
    from wfm.artifacts.retention import Collection


class GateWords(pydantic.BaseModel):
    """What a gate saw."""

    passed: bool
    against: str
    "Key of what bore the name then; empty: nothing did."
    words: list[str]


class PromotionRow(pydantic.BaseModel):
    """One promotion of a name."""

    reference: str
    "kind/name@alias"
    alias: str
    number: int
    key: str
    at: str
    by: str
    "``run ID``, or ``USER@HOST`` by hand; empty: not known."
    gate: GateWords | None
    "None: by hand, or none is declared."

    @classmethod
    def of(cls, made: "Promotion") -> "PromotionRow":
        """Of a record."""
        seen = made.gate
        gate = GateWords(passed=seen.passed, against=seen.against, words=list(seen.words)) if seen else None
        return cls(
            reference=made.reference, alias=made.alias, number=made.number, key=made.key, at=made.created_at, by=made.by,
            gate=gate,
        )  # fmt: skip

    def line(self) -> str:
        """For people."""
        told = [f"{self.reference} {self.number} is {self.key[:12]} since {moment(self.at)} UTC"]
        told += [f"by {self.by}"] if self.by else []
        if self.gate:
            told += [
                f"{'passed' if self.gate.passed else 'did not pass'}: {'; '.join(self.gate.words) or 'nothing asked'}"
            ]
        return ", ".join(told)


class History(pydantic.BaseModel):
    """``wfm artifacts history``: newest first."""

    promotions: list[PromotionRow]


class ArtifactRow(pydantic.BaseModel):
    """A line of ``wfm artifacts list``."""

    names: list[str]
    kind: str
    key: str
    stage: str
    at: str
    files: int
    bytes: int
    "Parts included, where all are there; else of its own files."
    parts: int
    problem: str = ""
    "Why it does not count, or cannot be read; empty: it does, and can."


class ArtifactList(pydantic.BaseModel):
    """``wfm artifacts list``."""

    artifacts: list[ArtifactRow]


class Shown(pydantic.BaseModel):
    """``wfm artifacts show``: the manifest, what of it is a list as a count, and what the store knows besides."""

    model_config = pydantic.ConfigDict(extra="allow")
    key: str
    kind: str
    stage: str
    created_at: str
    files: dict[str, int]
    parts: dict[str, int]
    names: list[str]
    invalidated: dict[str, str] | None = None


class FileRow(pydantic.BaseModel):
    path: str
    sha256: str
    bytes: int


class Files(pydantic.BaseModel):
    """``wfm artifacts files``."""

    files: list[FileRow]


class Change(pydantic.BaseModel):
    """A field of two manifests; absent on one side: None."""

    field: str
    first: Any
    second: Any


class Difference(pydantic.BaseModel):
    """``wfm artifacts diff``."""

    changes: list[Change]
    only_first: list[str]
    only_second: list[str]
    changed_files: list[str]
    same_files: int


class VerifyRow(pydantic.BaseModel):
    key: str
    kind: str
    whole: bool
    files: int
    bytes: int
    parts: int
    problems: list[str]
    purged: list[str]


class Verified(pydantic.BaseModel):
    """``wfm artifacts verify``; fails, beside this, where one is not whole."""

    artifacts: list[VerifyRow]


class AncestorRow(pydantic.BaseModel):
    key: str
    kind: str
    stage: str
    at: str
    depth: int
    "Steps from the artifact that was asked for."
    inputs: dict[str, str]
    problem: str


class Ancestry(pydantic.BaseModel):
    """``wfm artifacts lineage``: every artifact before its inputs."""

    ancestors: list[AncestorRow]
    sources: list[str]
    "With --sources."


class Pulled(pydantic.BaseModel):
    """``wfm artifacts pull``."""

    key: str
    folder: str
    files: list[str]
    "Below the folder."


class Invalidated(pydantic.BaseModel):
    """``wfm artifacts invalidate``."""

    key: str
    generation: int
    reason: str


class GoneRow(pydantic.BaseModel):
    area: str
    key: str
    bytes: int
    reason: str


class Collected(pydantic.BaseModel):
    """``wfm artifacts gc``: what went, or would go."""

    dry_run: bool
    gone: list[GoneRow]
    bytes: int
    attempts: int
    scratch: int
    nameless: int
    checkpoints: int
    live: int
    notes: list[str]
    unread: list[str]


class CollectionRow(pydantic.BaseModel):
    """One collection of the past."""

    id: str
    at: str
    by: str
    policy: dict[str, Any]
    gone: list[GoneRow]
    bytes: int
    attempts: int
    scratch: int
    checkpoints: int

    @classmethod
    def of(cls, made: "Collection") -> "CollectionRow":
        """Of a record."""
        gone = [GoneRow(area=one.area, key=one.key, bytes=one.bytes, reason=one.reason) for one in made.gone]
        return cls(
            id=made.id, at=made.at, by=made.by, policy=made.policy, gone=gone, bytes=sum(one.bytes for one in gone),
            attempts=made.attempts, scratch=made.scratch, checkpoints=made.checkpoints,
        )  # fmt: skip


class Collections(pydantic.BaseModel):
    """``wfm artifacts collected``: newest first."""

    collections: list[CollectionRow]


class HeldRow(pydantic.BaseModel):
    area: str
    key: str
    kind: str
    stage: str
    bytes: int
    why: str


class PurgeAnswer(pydantic.BaseModel):
    """``wfm artifacts purge``."""

    video: str
    done: bool
    "False: what would go is only shown."
    sources: list[str]
    held: list[HeldRow]
    learned: list[HeldRow]
    models: bool
    "Whether what has learned from it goes too."
    copies: list[str]
    names: list[str]
    notes: list[str]
    bytes: int
    clips: int
    before: str
    "When it was purged before; empty: it was not."


class Skipped(pydantic.BaseModel):
    """``wfm artifacts skipped``: as its lines."""

    skipped: list[dict[str, Any]]
