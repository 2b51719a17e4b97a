"""The store: one object with everything a stage or a command does to artifacts.

store = Store.open("runs/store")                     # or s3://bucket/prefix
if not store.has(key):
    with store.attempt(key) as attempt:
        (attempt.path / "clips.parquet").write_bytes(...)
        artifact = attempt.commit(stage="split_clips", kind="clips", inputs={"videos": videos.key})
store.promote("dataset", "curated", key)
table = store.artifact(store.resolve("dataset/curated@latest")).table("clips")
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.artifacts import generations
from wfm.artifacts.address import Address, below, cache_root, check_key, parse_address
from wfm.artifacts.artifact import Artifact
from wfm.artifacts.atomic import delete_folder, disk_error
from wfm.artifacts.attempt import Attempt
from wfm.artifacts.invalidation import Tombstone, tombstones, write_tombstones
from wfm.artifacts.lease import Lease
from wfm.artifacts.manifest import Manifest
from wfm.artifacts.names import Names
from wfm.artifacts.objects import open_objects
from wfm.artifacts.runs import Runs
from wfm.artifacts.verified import VerifiedFiles
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.collect import GcReport
    from wfm.artifacts.lineage import Lineage
    from wfm.artifacts.verify import VerifyReport

_KEPT_MANIFESTS = 512


class Store:
    """Artifacts, parts, names, leases and runs below one URL. Cheap to open; safe to use from several threads;
    picklable."""

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        self.address = address
        self.options = options
        self.objects = open_objects(address, options)
        self.cache = cache_root() / address.digest
        self.verified = VerifiedFiles(self.objects, self.cache)
        self.names = Names(self.objects)
        self.runs = Runs(self.objects, self.cache)
        self._manifests: dict[str, Manifest] = {}

    @classmethod
    def open(cls, url_or_path: str | os.PathLike[str], options: dict[str, Any] | None = None) -> "Store":
        """Open a store; a local folder is made at the first write.

        `options`: for s3:// and gs:// what s3fs and gcsfs take (`key`, `secret`, `endpoint_url` ...) and
        `retry_seconds` (how long a
        failing object store is asked again, default 120); for file:// `fsync` (default true).

        Raises InputError for a wrong address, a missing bucket or wrong credentials (which are never printed),
        MissingPackage when
        s3fs or gcsfs is not installed, TryAgain when the object store does not answer.
        """
        return cls(parse_address(url_or_path), dict(options or {}))

    @property
    def url(self) -> str:
        return self.address.url

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[Callable[..., "Store"], tuple[str, dict[str, Any]]]:
        return Store.open, (self.url, self.options)  # connections do not travel between processes

    # -- artifacts and parts

    def has(self, key: str) -> bool:
        """Whether the key is committed (and not invalidated)."""
        return self._current("artifacts", key) is not None

    def has_part(self, key: str) -> bool:
        """Whether the part key is committed (and not invalidated)."""
        return self._current("parts", key) is not None

    def artifact(self, key: str) -> Artifact:
        """Open a committed artifact. Raises InputError when there is none of that key."""
        return self._open("artifacts", key)

    def part(self, key: str) -> Artifact:
        """Open a committed part. Raises InputError when there is none of that key."""
        return self._open("parts", key)

    def attempt(self, key: str) -> Attempt:
        """Begin an attempt at an artifact: a folder to write in, then `commit` or `discard`."""
        return self._attempt("artifacts", key)

    def part_attempt(self, key: str) -> Attempt:
        """Begin an attempt at a part."""
        return self._attempt("parts", key)

    def committed_keys(self, stem: str = "") -> Iterator[str]:
        """Keys of all committed artifacts that begin with `stem`, in order of key."""
        for key in generations.keys(self.objects, "artifacts", stem):
            if generations.read_state(self.objects, f"artifacts/{key}").current is not None:
                yield key

    def known_keys(self) -> Iterator[str]:
        """The committed keys, and those that were invalidated and not collected yet, in order of key."""
        for key in generations.keys(self.objects, "artifacts"):
            if generations.read_state(self.objects, f"artifacts/{key}").manifests:
                yield key

    def _keys(self, stem: str) -> list[str]:
        """The committed keys that begin with `stem`; where there is none, those that are not committed any more."""
        return list(self.committed_keys(stem)) or list(generations.keys(self.objects, "artifacts", stem))

    def open_generation(self, area: str, key: str, generation: int) -> Artifact:
        """Open one commit of a key in `artifacts` or `parts`, also one that was invalidated since."""
        folder = f"{area}/{check_key(key)}"
        path = generations.manifest_path(folder, generation)
        manifest = self._manifests.get(path)
        if manifest is None:
            try:
                data = self.objects.read(path)
            except FileNotFoundError:
                raise InputError(
                    f"{self.url} has no generation {generation} of {area}/{key}: it was never committed, or was collected"
                ) from None
            manifest = Manifest.from_bytes(data, f"{self.url}/{path}", key=key, generation=generation)
            while len(self._manifests) >= _KEPT_MANIFESTS:
                self._manifests.pop(next(iter(self._manifests)), None)
            self._manifests[path] = manifest
        return Artifact(self, folder, manifest)

    def _current(self, area: str, key: str) -> int | None:
        return generations.read_state(self.objects, f"{area}/{check_key(key)}").current

    def _open(self, area: str, key: str) -> Artifact:
        generation = self._current(area, key)
        if generation is None:
            what = "artifact" if area == "artifacts" else "part"
            stone = self.tombstone(key, area)
            if stone is not None:
                raise InputError(f"{what} {key} {stone.told()}; run its stage again")
            raise InputError(
                f"{self.url} has no committed {what} {key}: run its stage, or look at `wfm artifacts list`"
            )
        return self.open_generation(area, key, generation)

    def _attempt(self, area: str, key: str) -> Attempt:
        folder = f"{area}/{check_key(key)}"
        return Attempt(
            self.objects, folder, key, self.cache, lambda generation: self.open_generation(area, key, generation)
        )

    # -- scratch

    def scratch(self, key: str) -> Path:
        """A local folder that stays between the attempts at a key, for checkpoints to go on from. Never part of the
        artifact."""
        path = self.local_folder(f"scratch/{check_key(key)}")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, path) from error
        return path

    def clear_scratch(self, key: str) -> None:
        """Delete the scratch folder of a key."""
        delete_folder(self.local_folder(f"scratch/{check_key(key)}"))

    def local_folder(self, path: str) -> Path:
        """Where a folder of the store lies on this machine: in the store itself, or (a remote one) in the cache."""
        return self.objects.local_path(path) or below(self.cache, path)

    def clear_cached(self, path: str) -> None:
        """Delete what the cache of this machine has of a folder of the store."""
        delete_folder(below(self.cache, path))

    # -- names, leases, invalidation

    def promote(self, kind: str, name: str, key: str, alias: str = "latest") -> int:
        """Let `kind/name@alias` mean `key` from now on; returns the number of this promotion (the history stays).

        Raises InputError when the key is not committed or is of another kind.
        """
        artifact = self.artifact(key)
        if artifact.kind != kind:
            raise InputError(
                f"{key[:12]} is of kind {artifact.kind!r}, it cannot be promoted as {kind!r}: use {artifact.kind}/{name}"
            )
        return self.names.promote(kind, name, alias, key)

    def resolve(self, reference: str) -> str:
        """The key meant by `kind/name@alias` (alias defaults to latest), by a key, or by its first 8 or more digits
        if they are unique."""
        return self.names.resolve(reference, self._keys)

    def lease(self, key: str, ttl_seconds: float = 30.0, *, inputs: tuple[str, ...] = ()) -> Lease:
        """The lease of a key, not taken yet: `with store.lease(key) as lease:` waits for it (`wfm.artifacts.lease`).

        `inputs`: keys that must stay while it is held (garbage collection asks).
        """
        return Lease(self.objects, check_key(key), ttl_seconds, inputs=inputs)

    def invalidate(self, key: str, reason: str, *, parts: bool = True) -> Tombstone:
        """Tombstone the current commit of a key, and of its parts (else a rerun would only put the same parts
        together again).

        The files stay until `gc`; the next commit is the next generation. One whose manifest cannot be read is tombstoned too;
        what its parts are is not known then. A key that only a part has means the part. Raises InputError when nothing is
        committed.
        """
        return write_tombstones(self, check_key(key), reason, parts=parts)

    def tombstone(self, key: str, area: str = "artifacts") -> Tombstone | None:
        """Why nothing is committed under a key any more; None when something is, or nothing ever was."""
        if self._current(area, key) is not None:
            return None
        return max(tombstones(self.objects, area, key), key=lambda stone: stone.generation, default=None)

    def verify(self, key: str) -> "VerifyReport":
        """Read every byte of an artifact and its parts and compare with the manifests (`wfm.artifacts.verify`).

        A manifest that cannot be read is a problem in the report. Raises InputError when nothing is committed.
        """
        from wfm.artifacts.verify import VerifyReport, verify

        try:
            artifact = self.artifact(key)
        except InputError as error:
            if not self.has(key):
                raise
            return VerifyReport(key, problems=[str(error)])
        return verify(self, artifact)

    def lineage(self, key: str) -> "Lineage":
        """What an artifact was made from, back to the sources (`wfm.artifacts.lineage`)."""
        from wfm.artifacts.lineage import trace

        return trace(self, key)

    def gc(self, **choices: Any) -> "GcReport":
        """Delete what no name, run or lease needs (`wfm.artifacts.collect.collect` has the choices; `dry_run=True`
        only reports)."""
        from wfm.artifacts.collect import collect

        return collect(self, **choices)

    def pull(self, key: str, into: str | os.PathLike[str], what: str = "tables") -> list[Path]:
        """Copy `tables`, one split (`split:test`) or `all` of an artifact into a folder (`wfm.artifacts.pull`);
        returns the new files."""
        from wfm.artifacts.pull import pull

        return pull(self.artifact(key), Path(into), what)
