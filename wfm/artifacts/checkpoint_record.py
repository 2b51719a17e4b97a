"""What a checkpoint says about itself, wherever it lies, and the check of its files against that.

The same record stands beside the files on the machine (`state.json`) and in the store (the manifest that commits it). It holds
its own sha256: of a record that was damaged nothing is believed.
"""

import dataclasses
import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from wfm.artifacts import schema
from wfm.artifacts.address import utc_now
from wfm.artifacts.atomic import open_plain
from wfm.artifacts.lease import this_process
from wfm.artifacts.listing import FileEntry
from wfm.artifacts.schema import Count, Key, Short
from wfm.artifacts.verified import hash_file
from wfm.errors import DataError, InputError

SCHEMA_VERSION = 2
RECORD = "state.json"
"""The record's name in a folder of this machine."""


@dataclass(frozen=True)
class CheckpointRecord:
    """One checkpoint: which, of what, and its files."""

    step: Count
    """Steps that were done."""
    fingerprint: Key
    """Of the run: one of another run is not resumed."""
    files: tuple[FileEntry, ...]
    state: dict[str, Any]
    """Plain values that belong to it."""
    fence: Count = 0
    """Number of the lease of whoever wrote it; 0 without one."""
    key: Annotated[str, StringConstraints(pattern="^([0-9a-f]{64})?$")] = ""
    """Of the artifact that is being made; empty outside a store."""
    created_at: Short = field(default_factory=utc_now)
    host: Short = field(default_factory=lambda: str(this_process()["host"]))
    machine: Short = field(default_factory=lambda: str(this_process()["machine"]))

    def to_bytes(self) -> bytes:
        """JSON with its own sha256. Raises InputError for values that JSON cannot hold."""
        document = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return schema.encode({**document, "digest": _digest(document)})

    @classmethod
    def from_bytes(cls, data: bytes, where: str, **place: Any) -> "CheckpointRecord":
        """Read a record. `place`: the fields that its place tells. Raises DataError for one that cannot be used: damaged, of
        something else, of another schema."""
        try:
            document = schema.decode(data, where, SCHEMA_VERSION)
            digest = document.pop("digest", None)
            whole = digest == _digest(document)
        except DataError:
            raise
        except InputError as error:  # a newer wfm's: no use to this one, and no fault of whoever started it
            raise DataError(f"{where} cannot be used: {error}") from None
        if document["schema_version"] != SCHEMA_VERSION:
            raise DataError(f"{where} was written by an older wfm (schema version {document['schema_version']})")
        if not whole:
            raise DataError(f"{where} is damaged: its bytes are not those that were written")
        record = schema.fit(cls, document, where)
        for name, expected in place.items():
            if getattr(record, name) != expected:
                raise DataError(f"{where} is that of something else: {name} is {getattr(record, name)!r}")
        names = [entry.path for entry in record.files]
        if len(set(names)) != len(names) or any("/" in name for name in names) or RECORD in names:
            raise DataError(f"{where} is damaged: its list of files holds a name twice, or one that is none")
        return record

    @property
    def names(self) -> tuple[str, ...]:
        """Of its files. What else lies in its folder is not its."""
        return tuple(entry.path for entry in self.files)

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.files)


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(schema.encode(dict(document))).hexdigest()


def read_folder(folder: Path) -> CheckpointRecord:
    """The record of a checkpoint on this machine. Raises DataError when there is none that can be used."""
    try:
        with open_plain(folder / RECORD) as file:
            return CheckpointRecord.from_bytes(file.read(schema.MAX_BYTES + 1), str(folder / RECORD))
    except FileNotFoundError:
        raise DataError(f"{folder} has no {RECORD}") from None


def list_files(folder: Path) -> tuple[FileEntry, ...]:
    """Every file of a folder but the record, made durable on the way."""
    names = sorted(path.name for path in folder.iterdir() if path.name != RECORD)
    return tuple(FileEntry(name, *hash_file(folder / name, fsync=True)) for name in names)


def verify(folder: Path, record: CheckpointRecord) -> None:
    """Read every byte. Raises DataError for a file that is missing or not as the record says."""
    for entry in record.files:
        path = folder / entry.path
        try:
            found = path.lstat()
        except FileNotFoundError:
            raise DataError(f"{path} is missing") from None
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path} is no plain file")
        if found.st_size != entry.size:
            raise DataError(f"{path} has {found.st_size} bytes, and had {entry.size}")
        if hash_file(path)[1] != entry.sha256:
            raise DataError(f"{path} is damaged: its sha256 is not that of what was written")
