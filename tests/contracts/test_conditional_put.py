"""A service that does not keep a conditional put would lose commits, leases and promotions in silence: it is tried before the
first write, once a process, and refused. S3 here is moto's server behind a gateway that a test lets misbehave.
"""

import itertools
import json
import os
import subprocess
import sys
import threading

import pytest

from wfm.artifacts import Store, on_cloud
from wfm.errors import InputError, TryAgain

KEY = "a" * 64
_numbers = itertools.count()


class Gateway:
    """What stands before the server: `mode` says what it does with a conditional put; `seen` what it was asked."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self.mode, self.seen = "honest", []
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        self._app = self.server._server.app
        self.server._server.app = self
        host, port = self.server.get_host_and_port()
        self.url = f"http://{host}:{port}"

    def __call__(self, environ, start):
        self.seen.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], "HTTP_IF_NONE_MATCH" in environ))
        if environ["REQUEST_METHOD"] == "PUT" and "HTTP_IF_NONE_MATCH" in environ:
            if self.mode == "deaf":
                del environ["HTTP_IF_NONE_MATCH"]
            elif self.mode != "honest":
                code = {"501": "NotImplemented", "400": "InvalidArgument"}[self.mode]
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start(f"{self.mode} {code}", [("Content-Type", "application/xml")])
                text = "A header you provided implies functionality that is not implemented"
                return [f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()]
        return self._app(environ, start)

    def puts(self):
        return [path for method, path, conditional in self.seen if method == "PUT" and conditional]


@pytest.fixture(scope="module")
def gateway():
    made = Gateway()
    yield made
    made.server.stop()


@pytest.fixture
def place(gateway, monkeypatch, tmp_path):
    """(url, options) of a bucket of its own behind the gateway."""
    import s3fs

    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(on_cloud, "_probed", set())
    gateway.mode = "honest"
    bucket = f"conditional-{next(_numbers)}"
    s3fs.S3FileSystem(key="user-key", secret="not-a-real-secret", endpoint_url=gateway.url).mkdir(bucket)
    gateway.seen.clear()
    endpoint = gateway.url.replace("http://", "http://user-in-url:word-in-url@")
    return f"s3://{bucket}/store", {
        "key": "user-key", "secret": "not-a-real-secret", "endpoint_url": gateway.url, "retry_seconds": 3.0,
        "shown": endpoint,
    }  # fmt: skip


def opened(place, **more):
    url, options = place
    return Store.open(url, {name: value for name, value in {**options, **more}.items() if name != "shown"})


WRITES = {
    "an attempt": lambda store: store.attempt(KEY),
    "a part": lambda store: store.part_attempt(KEY),
    "a lease": lambda store: store.lease(KEY).acquire(wait_seconds=0),
    "a name": lambda store: store.names.promote("dataset", "d", "latest", KEY),
    "a run": lambda store: store.runs.create({}),
}


@pytest.mark.parametrize("mode", ["deaf", "501", "400"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_service_that_does_not_keep_it_is_refused(gateway, place, mode, write):
    """Before: nothing was noticed. Two promotions both were number 1, a lease was taken twice, the second of two commits
    replaced the first; with 501 the write was tried again for two minutes, with 400 it was a bug of ours."""
    gateway.mode = mode
    store = opened(place)
    with pytest.raises(InputError, match="If-None-Match") as caught:
        write(store)
    assert gateway.url in str(caught.value)
    assert "put the store elsewhere" in str(caught.value)
    assert "not-a-real-secret" not in str(caught.value)
    assert caught.value.__context__ is None or "not-a-real-secret" not in str(caught.value.__context__)
    assert len(gateway.puts()) <= 3
    assert [path for path in gateway.puts() if "/probe/" not in path] == []
    with pytest.raises(InputError, match="If-None-Match"):  # also the second time
        write(store)


def test_reading_tries_nothing(gateway, place):
    with opened(place).attempt(KEY) as attempt:
        (attempt.path / "a").write_bytes(b"1")
        attempt.commit(stage="s", kind="k")
    on_cloud._probed.clear()
    gateway.seen.clear()
    gateway.mode = "deaf"
    reader = opened(place)
    assert reader.artifact(KEY).open("a").read() == b"1"
    assert reader.verify(KEY).ok
    assert reader.gc(dry_run=True, min_age_seconds=0).dead
    assert [method for method, _, _ in gateway.seen if method == "PUT"] == []


def test_it_is_tried_once_a_process_with_one_object_that_stays(gateway, place):
    for number in range(3):
        opened(place).names.promote("dataset", f"d{number}", "latest", KEY)
    probes = [path for path in gateway.puts() if "/probe/" in path]
    assert len(probes) == 2
    on_cloud._probed.clear()  # as in another process
    opened(place).names.promote("dataset", "d4", "latest", KEY)
    assert len([path for path in gateway.puts() if "/probe/" in path]) == 3  # the first put is refused already
    store = opened(place)
    assert store.objects.names("probe") == ["create-if-absent"]
    store.gc(min_age_seconds=0, wait_seconds=0)
    assert store.objects.names("probe") == ["create-if-absent"]


def test_two_that_open_at_once_do_not_disturb_each_other(gateway, place):
    code = (
        "import sys, json; from wfm.artifacts import Store; s = Store.open(sys.argv[1], json.loads(sys.argv[2]));"
        "sys.stdin.read(1); [s.names.promote('dataset', sys.argv[3], 'latest', f'{n:064x}') for n in range(3)]"
    )
    options = json.dumps({name: value for name, value in place[1].items() if name != "shown"})
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, place[0], options, name], stdin=subprocess.PIPE, env={**os.environ}
        )
        for name in ("one", "two")
    ]
    for racer in racers:
        racer.stdin.write(b"x")
        racer.stdin.flush()
    assert [racer.wait(60) for racer in racers] == [0, 0]
    for racer in racers:
        racer.stdin.close()
    store = opened(place)
    threads = [threading.Thread(target=opened(place).attempt, args=(f"{n:064x}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [promotion.number for promotion in store.names.list()] == [3, 3]


def test_credentials_in_the_services_address_are_not_shown(gateway, place):
    gateway.mode = "deaf"
    store = opened(place)
    store.objects._service = on_cloud._service("s3", {"endpoint_url": place[1]["shown"] + "/path?token=secret-token"})
    with pytest.raises(InputError, match=f"{gateway.url}/path ") as caught:
        store.attempt(KEY)
    for secret in ("user-in-url", "word-in-url", "secret-token"):
        assert secret not in str(caught.value)


def test_a_service_that_does_not_answer_is_no_verdict(gateway, place):
    store = opened(place, retry_seconds=0.3)
    gateway.server._server.app, kept = (lambda environ, start: (start("503 Slow", []), [b""])[1]), gateway
    try:
        with pytest.raises(TryAgain):
            store.attempt(KEY)
    finally:
        gateway.server._server.app = kept
    with store.attempt(KEY):
        pass
