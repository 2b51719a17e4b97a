"""An attempt: a folder to write in, which a commit turns into an artifact or a part, or which leaves no trace.

On a local store the folder already lies where its files will be read; on a remote one it lies in the cache and is
uploaded. Either way
nothing can be seen before the manifest is there.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from wfm.artifacts import generations, listing, schema
from wfm.artifacts.address import below, check_key, check_name, new_id, safe_path, utc_now
from wfm.artifacts.atomic import disk_error, fsync_folder
from wfm.artifacts.listing import NODE_FOLDER, PARTS_FOLDER, FileEntry, PartEntry
from wfm.artifacts.manifest import Manifest, content_digest
from wfm.artifacts.objects import Objects
from wfm.artifacts.verified import hash_file
from wfm.crash_points import crash_point
from wfm.errors import InputError, TryAgain
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts.artifact import Artifact

_log = get_logger(__name__)
AT_ONCE = 8  # files hashed or uploaded


class Attempt:
    """A folder (`path`) for one try at a key. Use it as a context manager to discard what was not committed."""

    def __init__(
        self, objects: Objects, folder: str, key: str, cache: Path, open_generation: Callable[[int], "Artifact"]
    ) -> None:
        self.id = new_id()
        self.key = key
        self._objects = objects
        self._folder = folder  # artifacts/<key> or parts/<key>
        self._open_generation = open_generation
        self._files_folder = f"{folder}/attempts/{self.id}"
        self._committed = False
        objects.begin_writing()
        self.path: Path = objects.local_path(self._files_folder) or below(cache, self._files_folder)
        try:
            self.path.mkdir(parents=True)
        except OSError as error:
            raise disk_error(error, self.path) from error
        crash_point("attempt_opened")

    def commit(
        self,
        *,
        stage: str,
        kind: str,
        counts: Mapping[str, int] | None = None,
        skipped: Mapping[str, int] | None = None,
        config: Mapping[str, Any] | None = None,
        code_id: str = "",
        inputs: Mapping[str, str] | None = None,
        parts: Sequence[PartEntry] = (),
        timings: Mapping[str, float] | None = None,
        resources: Mapping[str, float] | None = None,
        versions: Mapping[str, str] | None = None,
        fence: int = 0,
        extra: Mapping[str, Any] | None = None,
    ) -> "Artifact":
        """Publish the files in `path` under the key. May be called again after TryAgain.

        When another attempt committed the key first, this one is discarded and the other's artifact is returned:
        both were made from
        the same inputs by the same code.

        Raises InputError for file names or values that cannot be stored, TryAgain for a full disk or a failing
        object store.
        """
        check_name(stage, "stage")
        check_name(kind, "kind")
        files = self._take_files()
        _check_parts(parts)
        fields: dict[str, Any] = {
            "key": self.key,
            "attempt": self.id,
            "stage": stage,
            "kind": kind,
            "created_at": utc_now(),
            "digest": content_digest(files, parts),
            "files": listing.build(files, "files", self._write_node),
            "parts": listing.build(parts, "parts", self._write_node),
            "counts": dict(counts or {}),
            "skipped": dict(skipped or {}),
            "config": dict(config or {}),
            "code_id": code_id,
            "inputs": dict(inputs or {}),
            "timings": dict(timings or {}),
            "resources": dict(resources or {}),
            "versions": dict(versions or {}),
            "fence": fence,
            "extra": dict(extra or {}),
        }
        _manifest(1, fields).to_bytes()  # what cannot be written is found before anything is sent
        crash_point("files_hashed")
        self._make_durable(files)
        crash_point("files_durable")
        generation = self._publish(fields)
        return self._open_generation(generation)

    def _publish(self, fields: dict[str, Any]) -> int:
        for _ in range(8):
            generation = generations.read_state(self._objects, self._folder).next
            data = _manifest(generation, fields).to_bytes()
            path = generations.manifest_path(self._folder, generation)
            if self._objects.create(path, data, partial(self._is_mine, path, generation)):
                self._committed = True
                crash_point("manifest_written")
                return generation
            if generations.read_state(self._objects, self._folder).current == generation:
                _log.info("%s was committed by another attempt first; this one is discarded", self.key[:12])
                self.discard()
                return generation
            # the winner was invalidated a moment later: ours becomes the next generation
        raise TryAgain(f"{self.key[:12]} is invalidated as fast as it is committed")

    def _is_mine(self, path: str, generation: int, found: bytes) -> bool:
        where = f"{self._objects.address.url}/{path}"
        return Manifest.from_bytes(found, where, key=self.key, generation=generation).attempt == self.id

    def discard(self) -> None:
        """Delete the folder and whatever was uploaded from it. A committed attempt stays."""
        if self._committed:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self._objects.local_path(self._folder) is None:
            try:
                self._objects.delete_tree(self._files_folder)
            except (TryAgain, InputError) as error:  # unseen without a manifest; garbage collection takes it later
                _log.warning("leftovers of attempt %s stay until the next `wfm artifacts gc`: %s", self.id, error)

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _take_files(self) -> list[FileEntry]:
        def take(path: str) -> FileEntry:
            size, digest = hash_file(self.path / path, fsync=self._objects.fsync)
            return FileEntry(path, size, digest)

        try:
            paths = sorted(_regular_files(self.path))
            with ThreadPoolExecutor(AT_ONCE) as pool:  # a disk makes many files durable in one go when asked together
                return list(pool.map(take, paths))
        except OSError as error:
            raise disk_error(error, self.path) from error

    def _write_node(self, path: str, data: bytes) -> None:
        target = self.path / path
        try:
            target.parent.mkdir(exist_ok=True)
            with open(target, "wb") as file:
                file.write(data)
                file.flush()
                if self._objects.fsync:
                    os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, target) from error

    def _make_durable(self, files: list[FileEntry]) -> None:
        if self._objects.local_path(self._folder) is not None:
            if self._objects.fsync:
                for parent, _, _ in os.walk(self.path):
                    fsync_folder(Path(parent))
                fsync_folder(self.path.parent)
            return
        nodes = self.path / NODE_FOLDER
        paths = [entry.path for entry in files] + sorted(f"{NODE_FOLDER}/{node.name}" for node in nodes.glob("*.json"))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(self._upload, paths):
                pass

    def _upload(self, path: str) -> None:
        self._objects.upload(self.path / path, f"{self._files_folder}/{path}")
        crash_point("file_uploaded")


def _manifest(generation: int, fields: dict[str, Any]) -> Manifest:
    """Raises InputError for a value that would not be read back."""
    try:
        return Manifest(generation=generation, **fields)
    except ValidationError as error:
        raise InputError(f"this cannot be committed: {schema.first_fault(error)}") from None


def _regular_files(root: Path) -> Iterator[str]:
    """Paths of the files below `root`; refuses links, devices and pipes, and names that are not safe."""
    for parent, folders, names in os.walk(root):
        for name in [*names, *folders]:
            whole = Path(parent, name)
            path = whole.relative_to(root).as_posix()
            if path == NODE_FOLDER:  # left by an earlier call of commit that did not get through
                folders.remove(NODE_FOLDER)
                continue
            mode = whole.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            safe_path(path)
            if not stat.S_ISREG(mode):
                raise InputError(f"{path!r} cannot be committed: it is a link, device or pipe; write plain files")
            if path.startswith(f"{PARTS_FOLDER}/"):
                raise InputError(
                    f"{path!r} cannot be committed: the folder 'parts/' is where the artifact's parts appear; choose another"
                )
            yield path


def _check_parts(parts: Sequence[PartEntry]) -> None:
    names = set()
    for part in parts:
        check_name(part.name, "part name"), check_key(part.key)
        if part.name in names:
            raise InputError(f"part {part.name!r} is listed twice: give every part once")
        names.add(part.name)
