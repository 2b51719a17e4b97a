"""A store as a Python object: runs and artifacts by the names that people use. `wfm.artifacts.Store` is what lies beneath."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines.api.run import Overrides, Run, start_in
from wfm.artifacts import environment
from wfm.artifacts.listing import FileEntry
from wfm.artifacts.missing_store import require_store

if TYPE_CHECKING:
    import pyarrow as pa

    from wfm.artifacts import Artifact as Committed
    from wfm.artifacts import Manifest
    from wfm.artifacts import Store as Kept
    from wfm.data.dataset import Dataset
    from wfm.generation.published import PublishedModel


def open_store(url: str | os.PathLike[str] = "") -> "Store":
    """Open a store: a folder, ``s3://bucket/prefix`` or ``gs://…``; empty: ``WFM_STORE``, or ``wfm-store`` in the current
    folder. ``WFM_STORE_OPTIONS`` may hold JSON for s3fs or gcsfs. One that is not there yet is made by the first run.

    Raises InputError for a wrong address, a missing bucket or wrong credentials, MissingPackage without s3fs or gcsfs,
    TryAgain when the object store does not answer.
    """
    return Store(environment.open_store(url))


class Store:
    """Artifacts, names and runs below one address."""

    def __init__(self, opened: "Kept") -> None:
        self.opened = opened
        "The store itself, with all that stages do."

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def url(self) -> str:
        """Its address."""
        return self.opened.url

    def names(self, kind: str = "") -> dict[str, str]:
        """What every name means now: ``kind/name@alias`` -> key; of one kind (``model``, ``dataset``) when given. Raises
        InputError where there is no store."""
        return {promotion.reference: promotion.key for promotion in self._there().names.list(kind)}

    def artifact(self, reference: str) -> "Artifact":
        """An artifact by ``kind/name[@alias]``, by its key, or by the first 8 or more digits of it. Raises InputError, with
        the choices, for one that is not there."""
        store = self._there()
        return Artifact(store, store.artifact(store.resolve(reference)))

    def promote(self, reference: str, name: str) -> str:
        """Let ``kind/name[@alias]`` mean an artifact from now on (its history stays); returns the whole name."""
        from components.promotion import by_hand

        artifact = self.artifact(reference)
        kind, _, rest = name.partition("/")
        word, _, alias = rest.partition("@")
        self.opened.promote(kind, word, artifact.key, alias=alias or "latest", by=by_hand())
        return f"{kind}/{word}@{alias or 'latest'}"

    def runs(self, limit: int | None = 20) -> list[Run]:
        """The newest runs, newest first; None: all. Raises InputError where there is no store."""
        store = self._there()
        return [Run(found, store) for found in store.runs.list(limit=limit)]

    def get_run(self, run_id: str) -> Run:
        """A run by its id or the beginning of one. Raises InputError, with the newest, for another."""
        return Run(self._there().runs.open(run_id), self.opened)

    def run(
        self,
        pipeline: str,
        *,
        profile: str = "demo",
        videos: str | os.PathLike[str] = "",
        dataset: str = "",
        overrides: Overrides = (),
        limit: int = 0,
        run_id: str = "",
        engine: str = "local",
        cpu: float | None = None,
        memory_gib: float | None = None,
        quiet: bool = True,
        check: bool = True,
    ) -> Run:
        """Run a pipeline into this store, to its end: `wfm.run`."""
        return start_in(
            self.opened, pipeline, profile=profile, videos=videos, dataset=dataset, overrides=overrides, limit=limit,
            run_id=run_id, engine=engine, cpu=cpu, memory_gib=memory_gib, quiet=quiet, check=check,
        )  # fmt: skip

    def load(
        self, model: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "float32", decoder: str = "", text_encoder:
        str = ""
    ) -> "PublishedModel":  # fmt: skip
        """Open one of its models: `wfm.load`."""
        from wfm.generation.published import load_from

        return load_from(self._there, model, device=device, dtype=dtype, decoder=decoder, text_encoder=text_encoder)

    def dataset(
        self, dataset: str | os.PathLike[str], *, split: str = "train", shuffle: int | None = None
    ) -> "Dataset":
        """Open a split of one of its data sets: `wfm.dataset`."""
        from wfm.data.dataset import open_from

        return open_from(self._there, dataset, split=split, shuffle=shuffle)

    def _there(self) -> "Kept":
        return require_store(self.opened)


class Artifact:
    """One artifact: what it is, what it was made from, its files. What is read of it is verified."""

    def __init__(self, store: "Kept", committed: "Committed") -> None:
        self._store, self._committed = store, committed

    def __repr__(self) -> str:
        return repr(self._committed)

    @property
    def key(self) -> str:
        """Its key, 64 hex digits."""
        return self._committed.key

    @property
    def kind(self) -> str:
        """``dataset``, ``model``, ``clips`` ..."""
        return self._committed.kind

    @property
    def manifest(self) -> "Manifest":
        """All that it says of itself: stage, time, counts, what was skipped by reason, config, inputs, cost, versions."""
        return self._committed.manifest

    def names(self) -> list[str]:
        """The names that mean it now."""
        return [found.reference for found in self._store.names.list(self.kind) if found.key == self.key]

    def files(self, prefix: str = "") -> Iterator[FileEntry]:
        """Its files (path, size [bytes], sha256), those of its parts included, whose path begins with `prefix`."""
        return self._committed.files(prefix)

    def open(self, path: str) -> BinaryIO:
        """One file, open for reading. Raises InputError for a path that it has not, DataError for damaged bytes."""
        return self._committed.open(path)

    def table(self, name: str, columns: Sequence[str] | None = None) -> "pa.Table":
        """A table of it and of all its parts. Raises InputError, with the choices, for a name that it has not."""
        return self._committed.table(name, None if columns is None else list(columns))

    def pull(self, out: str | os.PathLike[str], what: str = "all") -> list[Path]:
        """Copy it below the folder `out`: ``all``, ``tables`` alone, or one split, ``split:test``. Every byte is checked; a
        file that is there and differs is an InputError, before anything is written. Returns the files."""
        return self._store.pull(self.key, out, what)

    def sources(self) -> list[str]:
        """The source files that it was made from, as they were given."""
        return sorted(set(self._store.lineage(self.key).sources()))

    def lineage(self) -> list[dict[str, Any]]:
        """What it was made from: itself first, then its inputs and theirs (key, depth, stage, kind, created_at, inputs,
        problem)."""
        fields = ("key", "depth", "stage", "kind", "created_at", "inputs", "problem")
        return [{name: getattr(one, name) for name in fields} for one in self._store.lineage(self.key)]

    def verify(self) -> list[str]:
        """Read every byte and compare it with what was committed; returns what is wrong, in words: empty for a whole one."""
        report = self._store.verify(self.key)
        return [*report.problems, *report.purged]
