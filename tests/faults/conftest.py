"""An S3 that fails when a test says so."""

import contextlib
import functools
import itertools
import threading
from http.server import ThreadingHTTPServer

import pytest

from tests.faults import kills, stage_runs, stage_scenes
from tests.faults.spoiling_proxy import SpoilingProxy
from wfm.artifacts import Store

_bucket_numbers = itertools.count()


@pytest.fixture(scope="module")
def upstream():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def proxy(upstream, monkeypatch, tmp_path):
    """A proxy class whose `plan` a test may set; `open()` opens the store behind it."""
    import s3fs

    host, port = upstream
    bucket = f"faults-{next(_bucket_numbers)}"
    s3fs.S3FileSystem(key="k", secret="secret", endpoint_url=f"http://{host}:{port}").mkdir(bucket)
    handler = type("Handler", (SpoilingProxy,), {"upstream": (host, port)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    handler.url = f"s3://{bucket}/store"
    handler.endpoint = f"http://127.0.0.1:{server.server_port}"
    timeouts = {"read_timeout": 0.6, "connect_timeout": 2}

    def open_store(retry_seconds=20.0):
        options = {"key": "k", "secret": "secret", "endpoint_url": handler.endpoint, "config_kwargs": timeouts}
        return Store.open(handler.url, {**options, "retry_seconds": retry_seconds})

    handler.open = staticmethod(open_store)
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def calm(tmp_path_factory, film):
    """``calm("split_clips", "disk")`` -> the scene, stores to run it on, and how it ends undisturbed."""
    root, servers, made = tmp_path_factory.mktemp("calm"), contextlib.ExitStack(), {}
    numbers = itertools.count()

    @functools.cache
    def scene(name):
        (root / name).mkdir()
        scenes = {
            "split_clips": lambda folder: stage_scenes.splitting(folder, film),
            "encode_latents": stage_scenes.encoding,
            "encode_latents --parts": functools.partial(stage_scenes.encoding, ranges=2),
            "train_world_model": stage_scenes.learning,
            "train_world_model ranks=2": functools.partial(stage_scenes.learning, ranks=2),
        }
        return scenes[name](root / name)

    @functools.cache
    def server():
        return servers.enter_context(stage_runs.s3_server())

    def new_place(name, kind, folder):
        seed = scene(name).seed
        if kind == "disk":
            return stage_runs.Disk(seed, folder)
        return stage_runs.Bucket(seed, f"bucket-{next(numbers)}", server().endpoint)

    def of(name, kind):
        if (name, kind) not in made:
            places = functools.partial(new_place, name, kind)
            folder = root / f"{name} {kind}"
            job = stage_runs.Job(scene(name), places(folder / "store"), folder / "job")
            made[name, kind] = kills.Calm(scene(name), stage_runs.undisturbed(job), places)
        return made[name, kind]

    with servers:
        yield of
