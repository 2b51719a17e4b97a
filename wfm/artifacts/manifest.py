"""The manifest: what a committed artifact or part says about itself. Writing it is the commit."""

import hashlib
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from wfm.artifacts import listing, schema
from wfm.artifacts.listing import FileEntry, Listing, PartEntry
from wfm.artifacts.schema import Count, Id, Key, Number, Short, Word
from wfm.errors import DataError

SCHEMA_VERSION = 1


class Manifest(BaseModel):
    """One commit of one key. Whatever of it becomes a path has the strict form of such ids, so that no manifest, whoever wrote
    it, leads out of the store; `from_bytes` is the one way in."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    schema_version: int = SCHEMA_VERSION
    key: Key
    """sha256 (hex) of stage, code id, config and input keys: known before the work is done."""
    generation: Number
    """1, and one more after each time the key was invalidated."""
    attempt: Id
    """Id of the attempt whose folder holds the files."""
    stage: Word
    kind: Word
    created_at: Short
    """UTC, ISO 8601."""
    digest: Key
    """sha256 over the sorted (path, sha256) of the files and the (name, digest) of the parts: equal digests, equal
    contents."""
    files: Annotated[Listing, AfterValidator(partial(listing.checked, label="files"))] = Listing()
    parts: Annotated[Listing, AfterValidator(partial(listing.checked, label="parts"))] = Listing()
    counts: dict[str, int] = {}
    """Items by name: inputs, outputs, clips, frames ..."""
    skipped: dict[str, int] = {}
    """Items left out, by reason."""
    config: dict[str, Any] = {}
    code_id: str = ""
    inputs: dict[str, Key] = {}
    """Name of each input and the key it had."""
    timings: dict[str, float] = {}
    """Wall-clock seconds by phase."""
    resources: dict[str, float] = {}
    """cpu_seconds, gpu_seconds, peak_bytes: the resident set of the largest process that worked at it, workers included."""
    versions: dict[str, str] = {}
    """Library versions that ran."""
    fence: Count = 0
    """Number of the lease under which this was made; 0 without one."""
    extra: dict[str, Any] = {}

    def to_bytes(self) -> bytes:
        """JSON. Raises InputError for values that JSON cannot hold."""
        return schema.encode(self.model_dump(mode="python"))

    @classmethod
    def from_bytes(cls, data: bytes, where: str, **place: Any) -> "Manifest":
        """Read a manifest. `place`: the `key` and `generation` of the path it was found at, which must be its own.

        Raises InputError (with advice) for a newer schema, DataError for a damaged one or that of another key.
        """
        try:
            return schema.read(cls, data, where, SCHEMA_VERSION, **place)
        except DataError as error:
            key = place.get("key", "KEY")
            raise DataError(f"{error}; `wfm artifacts invalidate {key} --reason TEXT`, then run again") from None


def content_digest(files: Iterable[FileEntry], parts: Iterable[PartEntry]) -> str:
    """sha256 over the sorted (path, sha256) of files, then the sorted (name, digest) of parts."""
    total = hashlib.sha256()
    for path, digest in sorted((entry.path, entry.sha256) for entry in files):
        total.update(f"{path}\0{digest}\n".encode())
    for name, digest in sorted((entry.name, entry.digest) for entry in parts):
        total.update(f"part\0{name}\0{digest}\n".encode())
    return total.hexdigest()
