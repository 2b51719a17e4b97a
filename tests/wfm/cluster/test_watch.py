"""Mirrors against a server that ends watches in every way that real ones do."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.wfm.cluster.raw_server import END, HEAD, Asked, chunk, line, served, status, whole
from wfm.cluster.api import Api
from wfm.cluster.kinds import POD
from wfm.cluster.launcher import RealClock
from wfm.cluster.refusals import Busy, Forbidden
from wfm.cluster.watch import Mirror


@dataclass(frozen=True)
class Kept:
    uid: str
    version: str


def keep(found: dict[str, Any]) -> Kept | None:
    meta = found["metadata"]
    return None if meta["name"] == "foreign" else Kept(meta["uid"], meta["resourceVersion"])


def pod(name: str, version: int, uid: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}}


class Server:
    """Lists `pods` at `version`; each watch is the next of `watches`."""

    def __init__(self, *watches: list[bytes]) -> None:
        self.pods, self.version = [pod("a", 3)], 10
        self.watches = list(watches)
        self.lists = 0
        self.from_versions: list[str] = []

    def __call__(self, asked: Asked) -> Iterator[bytes]:
        if "watch" not in asked.query:
            self.lists += 1
            yield whole({"metadata": {"resourceVersion": str(self.version)}, "items": self.pods})
            return
        self.from_versions.append(asked.query["resourceVersion"])
        assert asked.query["allowWatchBookmarks"] == "true"
        assert 1 <= int(asked.query["timeoutSeconds"]) <= 330
        yield from self.watches.pop(0) if self.watches else [HEAD, END]


def mirror_at(url: str, **more: Any) -> Mirror[Kept]:
    return Mirror(Api.connect(namespace="wfm", url=url), POD, "wfm.dev/job", RealClock(), keep=keep, **more)


def caught_up(server: Server, times: int) -> Mirror[Kept]:
    with served(server) as (url, _):
        mirror = mirror_at(url)
        for _ in range(times):
            mirror.catch_up()
    return mirror


def test_events_are_followed_and_the_next_watch_goes_on_from_the_last() -> None:
    server = Server([
        HEAD, line("ADDED", pod("b", 11)), line("ADDED", pod("foreign", 12)), line("MODIFIED", pod("a", 13)),
        line("DELETED", pod("b", 14)), END,
    ])  # fmt: skip
    mirror = caught_up(server, 3)
    assert mirror.objects() == {"a": Kept("uid-a", "13")}
    assert mirror.departed() == [Kept("uid-b", "14")]
    assert (server.lists, server.from_versions) == (1, ["10", "14"])


def test_a_bookmark_moves_the_place_and_nothing_else() -> None:
    server = Server([HEAD, line("BOOKMARK", {"metadata": {"resourceVersion": "900"}}), END])
    changes: list[int] = []
    with served(server) as (url, _):
        mirror = mirror_at(url, changed=lambda: changes.append(1))
        for _ in range(3):
            mirror.catch_up()
    assert server.from_versions == ["10", "900"]
    assert len(changes) == 1  # the list
    assert mirror.objects() == {"a": Kept("uid-a", "3")}


@pytest.mark.parametrize("place", ["status", "event"])
def test_a_410_lists_anew(place: str) -> None:
    """As the answer to the request, and as an event in the middle of a stream that began well."""
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 10 (900)"}
    server = Server([status(410, "Expired", "too old")] if place == "status" else [HEAD, line("ERROR", gone), END])
    server.pods = [pod("a", 3), pod("b", 4)]
    with served(server) as (url, _):
        mirror = mirror_at(url)
        mirror.catch_up()
        server.pods, server.version = [pod("a", 901, uid="another"), pod("c", 902)], 910
        mirror.catch_up()
        mirror.catch_up()
    assert mirror.objects() == {"a": Kept("another", "901"), "c": Kept("uid-c", "902")}
    assert {one.uid for one in mirror.departed()} == {"uid-a", "uid-b"}
    assert (server.lists, server.from_versions) == (2, ["10", "910"])


@pytest.mark.parametrize(("forgotten", "goes_on"), [(2, True), (3, False)])
def test_a_list_that_is_forgotten_in_the_middle_is_begun_anew(forgotten: int, goes_on: bool) -> None:
    """410 on the next page: what was read of it is half a view, and no reason to end."""
    lists: list[int] = []

    def answer(asked: Asked) -> Iterator[bytes]:
        if "continue" not in asked.query:
            lists.append(len(lists))
            first = pod("a" if len(lists) <= forgotten else "b", 3)
            yield whole({"metadata": {"resourceVersion": "10", "continue": "more"}, "items": [first]})
        elif len(lists) <= forgotten:
            yield status(410, "Expired", "The provided continue parameter is too old")
        else:
            yield whole({"metadata": {"resourceVersion": "11"}, "items": [pod("c", 4)]})

    with served(answer) as (url, _):
        mirror = mirror_at(url)
        if not goes_on:
            with pytest.raises(Busy, match="forgotten"):
                mirror.catch_up()
            assert not mirror.ready
        mirror.catch_up()
    assert set(mirror.objects()) == {"b", "c"}
    assert len(lists) == forgotten + 1


@pytest.mark.parametrize("nonsense", [
    b"{garbage\n", b"null\n", b"[]\n", b'"x"\n', b'{"type": "ADDED"}\n', b'{"type": "ADDED", "object": 7}\n',
    b'{"type": "ODD", "object": {"metadata": {"resourceVersion": "12"}}}\n',
    b'{"type": "MODIFIED", "object": {"metadata": {"name": "a"}}}\n', b"[" * 100_000 + b"\n", b"\xff\xfe\n",
])  # fmt: skip
def test_a_line_that_is_none_lists_anew(nonsense: bytes) -> None:
    """What came between is not known then: the view would be wrong for good."""
    server = Server([HEAD, line("ADDED", pod("b", 11)), chunk(nonsense), line("DELETED", pod("a", 13)), END])
    server.pods = [pod("a", 3), pod("b", 11)]
    mirror = caught_up(server, 2)
    assert server.lists == 2
    assert set(mirror.objects()) == {"a", "b"}


def test_an_error_of_the_server_in_the_middle_is_told_and_lists_anew() -> None:
    server = Server([HEAD, line("ADDED", pod("b", 11)), line("ERROR", {"code": 500, "message": "etcd"}), END])
    with served(server) as (url, _):
        mirror = mirror_at(url)
        mirror.catch_up()
        with pytest.raises(Busy, match="etcd"):
            mirror.catch_up()
        assert set(mirror.objects()) == {"a", "b"}
        mirror.catch_up()
    assert server.lists == 2


@pytest.mark.parametrize("end", [
    [END],                                                              # in order
    [],                                                                 # the connection closes between two chunks
    [b"1f4\r\n{\"type\": \"DELETED\", \"object\": {\"meta"],            # and in the middle of a line
])  # fmt: skip
def test_a_silent_end_loses_and_doubles_nothing(end: list[bytes]) -> None:
    server = Server([HEAD, line("ADDED", pod("b", 11)), *end], [HEAD, line("DELETED", pod("a", 12)), END])
    with served(server) as (url, _):
        mirror = mirror_at(url)
        mirror.catch_up()
        for _ in range(2):
            try:
                mirror.catch_up()
            except Busy:  # that it broke off may be told: what was heard before stays
                continue
    assert server.lists == 1
    assert server.from_versions[:2] == ["10", "11"]
    assert set(mirror.objects()) == {"b"}


def test_a_server_that_says_nothing_is_left() -> None:
    """Neither an event nor an end: the request has a time limit of its own."""
    hang = threading.Event()

    def answer(asked: Asked) -> Iterator[bytes]:
        if "watch" not in asked.query:
            yield whole({"metadata": {"resourceVersion": "10"}, "items": []})
            return
        yield HEAD
        hang.wait(20)

    with served(answer) as (url, _):
        mirror = mirror_at(url, seconds=-26.0)  # what is asked of the server, half a minute less than is waited for it
        mirror.catch_up()
        began = time.monotonic()
        with pytest.raises(Busy, match="broke off"):
            mirror.catch_up()
        assert time.monotonic() - began < 15
        hang.set()


def test_one_event_that_has_no_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfm.cluster.api.MOST_LINE", 100_000)
    server = Server([HEAD, *[chunk(b"x" * 65_536)] * 20])
    with served(server) as (url, _):
        mirror = mirror_at(url)
        mirror.catch_up()
        with pytest.raises(Busy, match="more than 100000 bytes"):
            mirror.catch_up()


def test_events_split_anywhere_are_whole() -> None:
    raw = b"".join(
        json.dumps({"type": "ADDED", "object": pod(f"é{n}", 20 + n)}, ensure_ascii=False).encode() + b"\n"
        for n in range(9)
    )
    server = Server([HEAD, *[chunk(raw[at : at + 7]) for at in range(0, len(raw), 7)], END])
    assert len(caught_up(server, 2).objects()) == 10


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_thread_streams_says_what_it_meets_and_ends() -> None:
    """A change is heard while the watch goes on; a refusal is kept for whoever ticks; `stop` ends a read that waits."""
    held = threading.Event()
    refused = threading.Event()

    def answer(asked: Asked) -> Iterator[bytes]:
        if refused.is_set():
            yield status(403, "Forbidden", 'User "x" cannot list resource "pods"')
        elif "watch" not in asked.query:
            yield whole({"metadata": {"resourceVersion": "10"}, "items": [pod("a", 3)]})
        else:
            yield HEAD
            yield line("ADDED", pod("b", 11))
            held.wait(20)
            yield line("ERROR", {"code": 410})

    with served(answer) as (url, _):
        mirror = mirror_at(url)
        mirror.start()
        until(lambda: set(mirror.objects()) == {"a", "b"})
        refused.set()
        held.set()
        until(lambda: isinstance(mirror.trouble, Forbidden))
        mirror.stop()
        thread = mirror._thread
        assert thread is not None
        thread.join(15)
        assert not thread.is_alive()
