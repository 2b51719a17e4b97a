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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.artifacts.address import check_key, parse_address
from wfm.artifacts.atomic import disk_error
from wfm.artifacts.attempt import Attempt
from wfm.artifacts.checkpoints import Checkpoints
from wfm.artifacts.invalidation import Tombstone, write_tombstones
from wfm.artifacts.lease import Lease, ttl_of_environment
from wfm.artifacts.listing import PartEntry
from wfm.artifacts.names import LATEST
from wfm.artifacts.shelf import Shelf
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.gc_report import GcReport
    from wfm.artifacts.lineage import Lineage
    from wfm.artifacts.names import Promotion, Seen
    from wfm.artifacts.verify import VerifyReport


class Store(Shelf):
    """Artifacts, parts, names, leases and runs below one URL. Cheap to open; safe to use from several threads;
    picklable."""

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

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[Callable[..., "Store"], tuple[str, dict[str, Any]]]:
        return Store.open, (self.url, self.options)  # connections do not travel between processes

    # -- artifacts and parts

    def attempt(self, key: str) -> Attempt:
        """Begin an attempt at an artifact: a folder to write in, then `commit` or `discard`."""
        return self._attempt("artifacts", key)

    def part_attempt(self, key: str) -> Attempt:
        """Begin an attempt at a part."""
        return self._attempt("parts", key)

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

    def checkpoints(self, key: str, *, fence: int = 0, taken_over: Callable[[], str] = lambda: "") -> Checkpoints:
        """Checkpoints of a key: in its scratch folder, and in the store, where they outlive this machine.

        `fence`: the number of the lease that the caller holds (`wfm.artifacts.checkpoints`), `taken_over` who has taken it.
        """
        return Checkpoints(self.objects, check_key(key), fence, self.scratch(key), taken_over)

    # -- names, leases, invalidation

    def promote(self, kind: str, name: str, key: str, alias: str = LATEST, *, by: str = "") -> int:
        """Let `kind/name@alias` mean `key` from now on; returns the number of this promotion (the history stays). `by`: who
        says so, for the record.

        Raises InputError when the key is not committed or is of another kind.
        """
        self._check_kind(kind, name, key)
        return self.names.promote(kind, name, alias, key, by=by).number

    def promote_through(
        self, kind: str, name: str, key: str, judge: "Callable[[Promotion | None], Seen]", *, by: str = ""
    ) -> "Promotion":
        """The same of `latest`, where `judge` lets it pass; else it becomes the name's `candidate` (`wfm.artifacts.names`)."""
        self._check_kind(kind, name, key)
        return self.names.promote_through(kind, name, key, judge, by=by)

    def _check_kind(self, kind: str, name: str, key: str) -> None:
        artifact = self.artifact(key)
        if artifact.kind != kind:
            raise InputError(
                f"{key[:12]} is of kind {artifact.kind!r}, it cannot be promoted as {kind!r}: use {artifact.kind}/{name}"
            )

    def resolve(self, reference: str) -> str:
        """The key meant by `kind/name@alias` (alias defaults to latest), by a key, or by its first 8 or more digits
        if they are unique."""
        return self.names.resolve(reference, self._keys)

    def lease(
        self, key: str, ttl_seconds: float | None = None, *, inputs: tuple[str, ...] = (), owner: str = ""
    ) -> Lease:
        """The lease of a key, not taken yet: `with store.lease(key) as lease:` waits for it (`wfm.artifacts.lease`).

        `ttl_seconds`: how long it may be silent before it is over (None: `lease.ttl_of_environment`). `inputs`: keys that must
        stay while it is held (garbage collection asks). `owner`: a job that may be started again; a lease of the same owner is
        its own, and taken over at once.
        """
        return Lease(self.objects, check_key(key), ttl_seconds or ttl_of_environment(), inputs=inputs, owner=owner)

    def invalidate(self, key: str, reason: str, *, parts: bool = True) -> Tombstone:
        """Tombstone the current commit of a key, and of its parts (else a rerun would only put the same parts
        together again).

        The files stay until `gc`; the next commit is the next generation. One whose manifest cannot be read is tombstoned too;
        what its parts are is not known then. A key that only a part has means the part. Raises InputError when nothing is
        committed.
        """

        def parts_of(generation: int) -> Iterable[PartEntry]:
            return self.open_generation("artifacts", key, generation).iterate_parts() if parts else ()

        return write_tombstones(self.objects, check_key(key), reason, parts_of)

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
