"""Objects in a bucket: `s3://` through s3fs (Amazon S3 and those that speak it, with conditional puts) and `gs://`
through gcsfs."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wfm.artifacts.address import Address, safe_path
from wfm.artifacts.atomic import Mine, create_by_put, whole_file
from wfm.artifacts.objects import GoOn, Stat, going_on
from wfm.artifacts.schema import MAX_BYTES
from wfm.artifacts.trouble import Patience, bare_url, is_empty_range, is_nameless
from wfm.credentials import fixed_keys
from wfm.errors import DataError, InputError, MissingPackage, TryAgain, WfmError

PIECE = 8 * 2**20  # bytes a request when streaming, and of a multipart upload
UPLOADS_AT_ONCE = 4  # pieces of one file
_CLIENTS = {"s3": ("s3fs", "S3FileSystem", "s3"), "gs": ("gcsfs", "GCSFileSystem", "gcs")}
_ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}
_RENEWED_SECONDS = 5.0
_PROBE = "probe/create-if-absent"
_PROBES = 3
_probed: set[tuple[str, str]] = set()
_probing = threading.Lock()


class CloudObjects:
    """A bucket and a prefix."""

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        self.address = address
        self.fsync = False  # what is to be made durable here is the service's matter
        self._root = address.root
        self._bucket = address.root.split("/", 1)[0]
        options = dict(options)
        seconds = float(options.pop("retry_seconds", 120.0))
        self._patience = Patience(f"{address.scheme}://{self._bucket}", options, seconds)
        self._s3 = address.scheme == "s3"
        self._service = _service(address.scheme, options)
        self._options = options
        self._renewing, self._renewed = threading.Lock(), float("-inf")
        self._fs = self._open_client(options)
        self._check_bucket()

    def _open_client(self, options: dict[str, Any]) -> Any:
        package, client, extra = _CLIENTS[self.address.scheme]
        if find_spec(package) is None:
            raise MissingPackage(package, extra=extra, purpose=f"a {self.address.scheme}:// store")
        if self._s3:
            own = {
                "connect_timeout": 10,
                "read_timeout": 60,
                "retries": {"total_max_attempts": 1},
                "max_pool_connections": 32,
            }
            options["config_kwargs"] = {**own, **options.get("config_kwargs", {})}
        options.update(use_listings_cache=False)
        try:
            filesystem = getattr(import_module(package), client)(**options)
        except TypeError as error:
            raise InputError(f"the store's options do not fit {package}: {error}") from None
        if self._s3:
            filesystem.retries = 1  # ours is the only loop that asks again
        return filesystem

    def _check_bucket(self) -> None:
        def look() -> None:
            self._fs.info(self._bucket)

        try:
            self._call(f"open the bucket {self._bucket}", look)
        except FileNotFoundError:
            raise InputError(
                f"there is no bucket {self.address.scheme}://{self._bucket}: create it, or correct the store's URL"
            ) from None

    def _call(self, what: str, action: Callable[[], Any]) -> Any:
        return self._patience.call(what, partial(self._told, action), self._renew)

    def _told(self, action: Callable[[], Any]) -> Any:
        """The result of `action()`, or an error that says why: S3's answer to a HEAD has no body."""
        try:
            return action()
        except Exception as error:
            if self._s3 and is_nameless(error):
                self._fs.call_s3("list_objects_v2", Bucket=self._bucket, Prefix=f"{self._root}/", MaxKeys=1)
            raise

    def _renew(self) -> str:
        """Ask whoever gives credentials for fresh ones (a session looks at its files, processes and roles when it is made);
        returns what to do when those have expired, too."""
        if not self._s3:
            return "renew GOOGLE_APPLICATION_CREDENTIALS"
        if fixed := fixed_keys(self._options):
            return (
                f"they are fixed in the store's options ({', '.join(fixed)} in WFM_STORE_OPTIONS), so nobody can renew them: "
                "take them out, and let a profile, a credential_process or the role of the pod give them"
            )
        with self._renewing:
            if time.monotonic() - self._renewed > _RENEWED_SECONDS:  # else another thread did so, a moment ago
                self._fs.connect(refresh=True)
                self._renewed = time.monotonic()
        return "fresh ones were asked for, and have expired, too: renew what AWS_PROFILE or the environment names"

    def _full(self, path: str) -> str:
        return f"{self._root}/{safe_path(path)}"

    def local_path(self, path: str) -> Path | None:
        return None

    def begin_writing(self) -> None:
        """Put one object twice, if absent: the second put must be refused. Once a process, and one request where the object is
        there from before. A service that takes both would lose commits, leases and promotions in silence.
        """
        place = (self.address.url, self._service)
        with _probing:
            if place in _probed:
                return
            try:
                deaf = all(self._put_if_absent(_PROBE, f"put {number}".encode()) for number in range(_PROBES))
            except (TryAgain, OSError):
                raise
            except WfmError as error:
                raise InputError(self._advice(f"refuses a conditional put ({error})")) from None
            if deaf:
                raise InputError(self._advice("overwrites what a conditional put must leave"))
            _probed.add(place)

    def _advice(self, what: str) -> str:
        header = "If-None-Match: *" if self._s3 else "ifGenerationMatch=0"
        return (
            f"{self.address.url} cannot be written to: the service at {self._service} {what}. A store needs {header} (Amazon "
            "S3, Google Cloud Storage, MinIO and Ceph of today have it), or two processes would overwrite each other's "
            "commits: upgrade the service, take away the gateway that drops the header, or put the store elsewhere; reading it "
            "is safe"
        )

    def read(self, path: str, at_most: int | None = MAX_BYTES) -> bytes:
        data: bytes | None = self._call(f"read {path}", partial(self._get, self._full(path), at_most))
        if data is None:
            raise DataError(
                f"{self.address.url}/{path} is damaged: it has more than the {at_most} bytes that are read of such an object"
            )
        return data

    def _get(self, whole: str, at_most: int | None) -> bytes | None:
        """The bytes of an object by one request; None when they are more than `at_most`."""
        if self._s3:
            from fsspec.asyn import sync

            found: bytes | None = sync(self._fs.loop, _get_from_s3, self._fs, whole, at_most)
            return found
        span = {} if at_most is None else {"start": 0, "end": at_most + 1}
        try:
            data: bytes = self._fs.cat_file(whole, **span)
        except Exception as error:
            if span and is_empty_range(error):
                return b""
            raise
        return None if at_most is not None and len(data) > at_most else data

    def stream(self, path: str) -> Iterator[bytes]:
        size = self._call(f"look at {path}", lambda: int(self._fs.info(self._full(path))["size"]))
        for start in range(0, size, PIECE):
            end = min(start + PIECE, size)
            yield self._call(f"read {path}", partial(self._fs.cat_file, self._full(path), start=start, end=end))

    def names(self, folder: str, stem: str = "") -> list[str]:
        try:
            entries = self._call(f"list {folder}", lambda: self._one_level(self._full(folder), stem))
        except FileNotFoundError:
            return []
        found = []
        for entry in entries:
            whole = entry["name"].rstrip("/")
            name = whole.rsplit("/", 1)[-1]
            if name.startswith(stem) and whole != self._full(folder):
                found.append(name + "/" if entry["type"] == "directory" else name)
        return sorted(found)

    def _one_level(self, folder: str, stem: str) -> list[dict[str, Any]]:
        if not self._s3:
            listed: list[dict[str, Any]] = self._fs.ls(folder, detail=True)
            return listed
        # s3fs's ls() lists the whole parent when a folder is empty (to see whether it is a file): here that may be
        # every key there is
        from fsspec.asyn import sync

        found: list[dict[str, Any]] = sync(self._fs.loop, self._fs._lsdir, folder, refresh=True, prefix=stem)
        return found

    def walk(self, folder: str) -> Iterator[Stat]:
        def look() -> dict[str, Any]:
            found: dict[str, Any] = self._fs.find(self._full(folder), detail=True)
            return found

        try:
            found = self._call(f"list {folder}", look)
        except FileNotFoundError:
            return
        for name, entry in sorted(found.items()):
            yield Stat(name[len(self._root) + 1 :], int(entry["size"]))

    def _put_if_absent(self, path: str, data: bytes) -> bool:
        try:
            self._call(f"create {path}", lambda: self._fs.pipe_file(self._full(path), data, mode="create"))
        except FileExistsError:
            return False
        return True

    def create(self, path: str, data: bytes, mine: Mine | None = None) -> bool:
        self.begin_writing()

        def look() -> bytes | None:
            try:
                return self.read(path)
            except FileNotFoundError:
                return None

        return create_by_put(partial(self._put_if_absent, path, data), look, data, mine)

    def replace(self, path: str, data: bytes, *, private: bool = False) -> None:
        self._call(f"write {path}", lambda: self._fs.pipe_file(self._full(path), data))

    def upload(self, local: Path, path: str, go_on: GoOn = going_on) -> None:
        pieces = {"chunksize": PIECE, "max_concurrency": UPLOADS_AT_ONCE} if self._s3 else {}
        asking = _asking(go_on)
        self._call(f"upload {path}", lambda: self._fs.put_file(str(local), self._full(path), callback=asking, **pieces))

    def download(self, path: str, local: Path) -> None:
        def get() -> None:
            with whole_file(local) as temporary:
                self._fs.get_file(self._full(path), str(temporary))

        self._call(f"download {path}", get)

    def delete(self, path: str) -> None:
        self._delete(self._full(path))

    def delete_tree(self, folder: str) -> None:
        for stat in self.walk(folder):  # whatever their names are: in a bucket they lie below the folder
            self._delete(f"{self._root}/{stat.path}")

    def _delete(self, whole: str) -> None:
        try:
            self._call(f"delete {whole}", lambda: self._fs.rm_file(whole))
        except FileNotFoundError:
            return


def _asking(go_on: GoOn) -> Any:
    """What fsspec calls after each piece of an upload."""
    from fsspec.callbacks import Callback

    class Asking(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            go_on()

    return Asking()


async def _get_from_s3(filesystem: Any, whole: str, at_most: int | None) -> bytes | None:
    # not cat_file: that asks for the size first, or for a range, whose bytes come without a checksum
    bucket, key, _ = filesystem.split_path(whole)
    answer = await filesystem._call_s3("get_object", Bucket=bucket, Key=key)
    body = answer["Body"]
    try:
        if at_most is not None and answer["ContentLength"] > at_most:
            return None
        data: bytes = await body.read()
        return data
    finally:
        body.close()


def _service(scheme: str, options: dict[str, Any]) -> str:
    """Where the service answers, for people: no credentials in it."""
    given = options.get("endpoint_url") or (options.get("client_kwargs") or {}).get("endpoint_url")
    for name in _ENDPOINTS[scheme]:
        given = given or os.environ.get(name)
    return bare_url(str(given)) if given else {"s3": "Amazon S3", "gs": "Google Cloud Storage"}[scheme]
