"""Reads every byte of an artifact where it is stored and compares it with what was committed."""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wfm.artifacts import generations
from wfm.artifacts.invalidation import tombstones
from wfm.artifacts.listing import FileEntry
from wfm.artifacts.manifest import content_digest
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts.artifact import Artifact
    from wfm.artifacts.shelf import Shelf


@dataclass
class VerifyReport:
    """What was read, each thing that is wrong in words, and what is gone because somebody purged it: that is no damage."""

    key: str
    kind: str = ""
    files: int = 0
    bytes: int = 0
    parts: int = 0
    problems: list[str] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(store: "Shelf", artifact: "Artifact") -> VerifyReport:
    """Check an artifact and its parts: sizes, hashes, digests, lists, tombstoned parts, and that its inputs are
    still there."""
    report = VerifyReport(artifact.key, artifact.kind)
    _verify_one(store, artifact, "artifacts", "", report)
    for name, key in sorted(artifact.manifest.inputs.items()):
        if not store.has(key):
            _note_absent(store, "artifacts", key, f"input {name} ({key})", report)
    return report


def _verify_one(store: "Shelf", artifact: "Artifact", area: str, head: str, report: VerifyReport) -> None:
    own: list[FileEntry] = []
    folder = f"{area}/{artifact.key}"
    try:
        for entry in artifact.files():
            if entry.path.startswith("parts/"):
                break
            own.append(entry)
            fault = _fault(store, f"{folder}/attempts/{artifact.manifest.attempt}/{entry.path}", entry)
            report.files += 1
            report.bytes += entry.size
            if fault:
                report.problems.append(f"{head}{entry.path} {fault}")
        parts = artifact.parts
    except (DataError, InputError) as error:
        report.problems.append(f"{head or 'artifact'}: {error}")
        return
    if content_digest(own, parts) != artifact.manifest.digest:
        report.problems.append(f"{head or 'artifact '}does not have the digest in its manifest")
    for part in parts:
        report.parts += 1
        buried = part.generation in generations.read_state(store.objects, f"parts/{part.key}").tombstones
        if buried and _note_absent(store, "parts", part.key, f"{head}parts/{part.name}", report, part.generation):
            continue  # its bytes were deleted on purpose
        try:
            opened = artifact.part(part.name)
        except (DataError, InputError) as error:
            report.problems.append(f"{head}parts/{part.name}: {error}")
            continue
        _verify_one(store, opened, "parts", f"{head}parts/{part.name}/", report)


def _note_absent(
    store: "Shelf", area: str, key: str, what: str, report: VerifyReport, generation: int | None = None
) -> bool:
    """Put down why something is not there any more: purged, which was meant, or else a problem. True where purged."""
    stones = [stone for stone in tombstones(store.objects, area, key) if generation in (None, stone.generation)]
    last = max(stones, key=lambda stone: stone.generation, default=None)
    if last is not None and last.by == "purge":
        report.purged.append(f"{what} {last.described()}")
        return True
    report.problems.append(f"{what} {last.described() if last is not None else 'is not in the store any more'}")
    return False


def _fault(store: "Shelf", path: str, entry: FileEntry) -> str:
    digest = hashlib.sha256()
    size = 0
    try:
        for piece in store.objects.stream(path):
            digest.update(piece)
            size += len(piece)
    except FileNotFoundError:
        return "is missing"
    if size != entry.size:
        return f"has {size} bytes, {entry.size} were committed"
    return "" if digest.hexdigest() == entry.sha256 else "has other bytes than were committed"
