"""The manifest: what a committed artifact or part says about itself. Writing it is the commit."""

import hashlib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wfm.artifacts import schema
from wfm.artifacts.listing import FileEntry, Listing, PartEntry
from wfm.errors import DataError

SCHEMA_VERSION = 1


class Manifest(BaseModel):
    """One commit of one key."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    key: str
    """sha256 (hex) of stage, code id, config and input keys: known before the work is done."""
    generation: int = Field(ge=1)
    """1, and one more after each time the key was invalidated."""
    attempt: str
    """Id of the attempt whose folder holds the files."""
    stage: str
    kind: str
    created_at: str
    """UTC, ISO 8601."""
    digest: str
    """sha256 over the sorted (path, sha256) of the files and the (name, digest) of the parts: equal digests, equal
    contents."""
    files: Listing = Listing()
    parts: Listing = Listing()
    counts: dict[str, int] = {}
    """Items by name: inputs, outputs, clips, frames ..."""
    skipped: dict[str, int] = {}
    """Items left out, by reason."""
    config: dict[str, Any] = {}
    code_id: str = ""
    inputs: dict[str, str] = {}
    """Name of each input and the key it had."""
    timings: dict[str, float] = {}
    """Wall-clock seconds by phase."""
    resources: dict[str, float] = {}
    """cpu_seconds, gpu_seconds, peak_bytes: the resident set of the largest process that worked at it, workers included."""
    versions: dict[str, str] = {}
    """Library versions that ran."""
    fence: int = 0
    """Number of the lease under which this was made; 0 without one."""
    extra: dict[str, Any] = {}

    def to_bytes(self) -> bytes:
        """JSON. Raises InputError for values that JSON cannot hold."""
        return schema.encode(self.model_dump(mode="python"))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "Manifest":
        """Read a manifest. Raises InputError (with advice) for a newer schema, DataError for a damaged one."""
        document = schema.decode(data, where, SCHEMA_VERSION)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(step) for step in first["loc"])
            raise DataError(
                f"{where} is damaged: field {field!r}: {first['msg']}; invalidate the artifact and rerun"
            ) from None


def content_digest(files: Iterable[FileEntry], parts: Iterable[PartEntry]) -> str:
    """sha256 over the sorted (path, sha256) of files, then the sorted (name, digest) of parts."""
    total = hashlib.sha256()
    for path, digest in sorted((entry.path, entry.sha256) for entry in files):
        total.update(f"{path}\0{digest}\n".encode())
    for name, digest in sorted((entry.name, entry.digest) for entry in parts):
        total.update(f"part\0{name}\0{digest}\n".encode())
    return total.hexdigest()
