"""Credentials on S3 that expire in the middle of a stage: it goes on with fresh ones, or ends as try_again with the reason."""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.components.conftest import runner_of
from wfm.artifacts import Store
from wfm.data.remote import object_info, remote_error, remote_file_system, remote_options
from wfm.errors import InputError, TryAgain
from wfm.parts.workers import local_cluster

KEY = "a" * 64
PROVIDER = """
import json, pathlib, sys
print(json.dumps({"Version": 1, "AccessKeyId": "k", "SecretAccessKey": "secret", "Expiration": "2099-01-01T00:00:00Z",
                  "SessionToken": pathlib.Path(sys.argv[1]).read_text()}))
"""


class Rotation:
    """Tokens that a program of the profile gives: the first is refused once `expire` was called, the next one is there."""

    def __init__(self, proxy: Any, folder: Path) -> None:
        self.proxy, self.file, self.number = proxy, folder / "token", 1
        self.refused: set[str] = set()
        self.seen: list[str] = []
        self.lock = threading.Lock()
        self.file.write_text("token-1")
        proxy.refuses = staticmethod(self.refuses)

    def refuses(self, token: str) -> str:
        self.seen.append(token)
        return "ExpiredToken" if token in self.refused else ""

    def expire(self, *, renewed: bool = True) -> None:
        with self.lock:
            self.refused.add(f"token-{self.number}")
            if renewed:
                self.number += 1
                self.file.write_text(f"token-{self.number}")


@pytest.fixture
def rotation(proxy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rotation:
    (tmp_path / "provider.py").write_text(PROVIDER)
    program = f"{sys.executable} {tmp_path / 'provider.py'} {tmp_path / 'token'}"
    (tmp_path / "config").write_text(f"[profile rotating]\ncredential_process = {program}\nregion = us-east-1\n")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "rotating")
    monkeypatch.setenv("WFM_STORE_OPTIONS", json.dumps({"endpoint_url": proxy.endpoint, "retry_seconds": 10.0}))
    return Rotation(proxy, tmp_path)


def opened(proxy: Any, **more: Any) -> Store:
    return Store.open(proxy.url, {"endpoint_url": proxy.endpoint, "retry_seconds": 5.0, **more})


def uses(store: Store, folder: Path) -> dict[str, Callable[[], Any]]:
    """Each way in which a store is used once: reading, listing, writing, up and down."""
    (folder / "up").write_bytes(b"x" * 100)
    return {
        "has": lambda: store.has(KEY),
        "names": lambda: store.objects.names("things"),
        "walk": lambda: list(store.objects.walk("things")),
        "read": lambda: store.objects.read("things/one"),
        "stream": lambda: b"".join(store.objects.stream("things/one")),
        "create": lambda: store.objects.create("things/two", b"2"),
        "replace": lambda: store.objects.replace("things/one", b"1"),
        "upload": lambda: store.objects.upload(folder / "up", "things/up"),
        "download": lambda: store.objects.download("things/one", folder / "down"),
        "delete": lambda: store.objects.delete("things/two"),
    }


def test_every_use_of_a_store_goes_on_with_fresh_keys(
    rotation: Rotation, proxy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: "refuses these credentials", wrong_input, and nobody tried again; of a HEAD, "something unexpected", a bug."""
    monkeypatch.setattr("wfm.artifacts.on_cloud._RENEWED_SECONDS", 0.0)
    store = opened(proxy)
    store.objects.replace("things/one", b"1")
    for name, use in uses(store, tmp_path).items():
        rotation.expire()
        use()
        assert rotation.seen[-1] == f"token-{rotation.number}", name


@pytest.mark.parametrize("keys", ["of a program", "fixed"])
def test_without_fresh_ones_it_is_worth_another_try_and_says_what_to_do(
    rotation: Rotation, proxy: Any, tmp_path: Path, keys: str
) -> None:
    fixed = {"key": "k", "secret": "secret", "token": "token-1"} if keys == "fixed" else {}
    store = opened(proxy, **fixed)
    store.objects.replace("things/one", b"1")
    rotation.expire(renewed=keys == "fixed")
    words = "take them out, and let a profile" if fixed else "fresh ones were asked for, and have expired, too"
    for name, use in uses(store, tmp_path).items():
        with pytest.raises(TryAgain, match=words) as caught:
            use()
        assert "token-1" not in str(caught.value), name


@pytest.mark.long
def test_a_stage_and_its_workers_go_on(
    rotation: Rotation, proxy: Any, tmp_path: Path, film: Callable[..., Path]
) -> None:
    store = opened(proxy)
    (tmp_path / "in").mkdir()
    for seed in range(4):
        film(tmp_path / "in" / f"{seed}.mp4", seed)
    videos = runner_of(store, tmp_path / "scratch")("ingest_videos", {"videos": str(tmp_path / "in")})
    commits = threading.Event()

    def plan(method: str, path: str) -> None:
        if method == "PUT" and "/parts/" in path and path.endswith("manifest.json") and not commits.is_set():
            commits.set()
            rotation.expire()  # in the middle of the stage, before the first part is committed

    proxy.plan = staticmethod(plan)
    with local_cluster(workers=2, memory="1GiB") as address:
        clips = runner_of(store, tmp_path / "scratch", scheduler=address)("split_clips", {}, videos=videos)
    assert clips.manifest.counts["outputs"]
    assert commits.is_set()
    assert {"token-1", "token-2"} <= set(rotation.seen)


def test_a_source_is_read_with_fresh_keys_and_never_called_unreadable(rotation: Rotation, proxy: Any) -> None:
    """An expired token made each file after it "unreadable", and the stage went on without them."""
    store = opened(proxy)
    store.objects.replace("things/one", b"1")
    url = f"{proxy.url}/things/one"
    file_system, path = remote_file_system(url, remote_options(store, url))
    rotation.expire()
    assert object_info(file_system, path)["size"] == 1
    rotation.expire(renewed=False)
    with pytest.raises(OSError) as caught:
        object_info(file_system, path)
    told = remote_error(url, caught.value)
    assert isinstance(told, TryAgain)
    assert "have expired: renew them" in str(told)


@pytest.mark.parametrize(("code", "kind"), [("RequestTimeTooSkewed", TryAgain), ("InvalidToken", InputError)])
def test_a_clock_that_is_wrong_and_a_token_that_never_was(
    rotation: Rotation, proxy: Any, tmp_path: Path, code: str, kind: type[Exception]
) -> None:
    store = opened(proxy)
    proxy.refuses = staticmethod(lambda token: code)
    words = "let the machine keep time" if kind is TryAgain else "refuses these credentials"
    for use in uses(store, tmp_path).values():
        with pytest.raises(kind, match=words):
            use()
