"""What lies in a store, to be read by key: all that collecting, verifying and tracing need of it. `store` adds the writing."""

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from wfm.artifacts import generations
from wfm.artifacts.address import Address, below, cache_root, check_key
from wfm.artifacts.artifact import Artifact
from wfm.artifacts.atomic import delete_folder
from wfm.artifacts.invalidation import Tombstone, tombstones
from wfm.artifacts.manifest import Manifest
from wfm.artifacts.names import Names
from wfm.artifacts.objects import Objects
from wfm.artifacts.run_list import Runs
from wfm.artifacts.verified import VerifiedFiles
from wfm.errors import InputError

_KEPT_MANIFESTS = 512


class Shelf:
    """Artifacts and parts by key, with their names and runs; and what this machine keeps of them beside the store."""

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        self.address = address
        self.options = options
        self.objects = open_objects(address, options)
        self.cache = cache_root() / address.digest
        self.verified = VerifiedFiles(self.objects, self.cache)
        self.names = Names(self.objects)
        self.runs = Runs(self.objects, self.cache)
        self._manifests: dict[str, Manifest] = {}
        self._keeping = Lock()

    @property
    def url(self) -> str:
        return self.address.url

    def has(self, key: str) -> bool:
        """Whether the key is committed (and not invalidated)."""
        return self._current("artifacts", key) is not None

    def has_part(self, key: str) -> bool:
        """Whether the part key is committed (and not invalidated)."""
        return self._current("parts", key) is not None

    def find_part(self, key: str) -> Artifact | None:
        """Open a part if it is committed: one request less than `has_part` and `part`."""
        generation = self._current("parts", key)
        return None if generation is None else self.open_generation("parts", key, generation)

    def artifact(self, key: str) -> Artifact:
        """Open a committed artifact. Raises InputError when there is none of that key."""
        return self._open("artifacts", key)

    def part(self, key: str) -> Artifact:
        """Open a committed part. Raises InputError when there is none of that key."""
        return self._open("parts", key)

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
            with self._keeping:  # parts are looked at by several threads
                while len(self._manifests) >= _KEPT_MANIFESTS:
                    self._manifests.pop(next(iter(self._manifests)))
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
                raise InputError(f"{what} {key} {stone.described()}; run its stage again")
            raise InputError(
                f"{self.url} has no committed {what} {key}: run its stage, or look at `wfm artifacts list`"
            )
        return self.open_generation(area, key, generation)

    def tombstone(self, key: str, area: str = "artifacts") -> Tombstone | None:
        """Why nothing is committed under a key any more; None when something is, or nothing ever was."""
        if self._current(area, key) is not None:
            return None
        return max(tombstones(self.objects, area, key), key=lambda stone: stone.generation, default=None)

    # -- folders on this machine

    def clear_scratch(self, key: str) -> None:
        """Delete the scratch folder of a key."""
        delete_folder(self.local_folder(f"scratch/{check_key(key)}"))

    def local_folder(self, path: str) -> Path:
        """Where a folder of the store lies on this machine: in the store itself, or (a remote one) in the cache."""
        return self.objects.local_path(path) or below(self.cache, path)

    def clear_cached(self, path: str) -> None:
        """Delete what the cache of this machine has of a folder of the store."""
        delete_folder(below(self.cache, path))


def open_objects(address: Address, options: dict[str, Any]) -> Objects:
    """The objects behind an address. `options` are fsspec's storage options for a remote one, and `fsync` (bool) for
    a disk."""
    if address.scheme == "file":
        from wfm.artifacts.on_disk import DiskObjects

        return DiskObjects(address, options)
    from wfm.artifacts.on_cloud import CloudObjects

    return CloudObjects(address, options)
