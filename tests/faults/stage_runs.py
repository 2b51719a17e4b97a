"""Stage processes that die where a test says, and start again on a machine that has seen nothing of it.

A fork server has imported what stages import, so a stage costs its work and not two seconds of interpreter. Each stage is a
process of its own all the same: it parses its command line, takes its lease, and is ended by a real SIGKILL.
"""

import dataclasses
import itertools
import json
import logging
import multiprocessing
import os
import re
import runpy
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from components.derivation import ROOT
from wfm.artifacts import Artifact, Store
from wfm.artifacts.nameless import NAMELESS
from wfm.artifacts.runs import Run
from wfm.crash_points import VARIABLE
from wfm.errors import TryAgain

LEASE_SECONDS = 1.5
PATIENCE = 180.0
_server = multiprocessing.get_context("forkserver")
_IMPORTED = """torch av s3fs wfm.artifacts.on_cloud wfm.artifacts.verify wfm.training.fit_world_model wfm.training.encode
wfm.families.diffusion.fit wfm.families.diffusion.build wfm.curation.cut.split components.entrypoint"""
_server.set_forkserver_preload(_IMPORTED.split())
_machines = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A stage with its inputs: what is run, killed, and run again."""

    component: str
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    "Keys by role."
    seed: Path
    "A store on disk that holds the inputs."
    ranges: int = 0
    "Processes that make a range of the parts each, before the plain call; the first one is killed. 0: the plain call alone."

    ranks: int = 1
    "Processes that share the work, on one machine."

    def calls(self) -> list[tuple[str, ...]]:
        """What is run to the end, one after another: arguments."""
        return [*(("--parts", f"{index}/{self.ranges}") for index in range(self.ranges)), ()]


class Place(Protocol):
    """A store of one's own for one scene, seeded with its inputs."""

    url: str
    options: Mapping[str, Any]

    def files(self) -> list[str]:
        """Every file that lies in it, with those whose names begin with a dot."""


class Disk:
    """A folder."""

    options: Mapping[str, Any] = {}

    def __init__(self, seed: Path, folder: Path) -> None:
        self.url = str(shutil.copytree(seed, folder))

    def files(self) -> list[str]:
        """See `Place`."""
        return [path.relative_to(self.url).as_posix() for path in Path(self.url).rglob("*") if path.is_file()]


class Bucket:
    """A prefix in a bucket of moto's server."""

    def __init__(self, seed: Path, name: str, endpoint: str, **options: Any) -> None:
        import boto3

        self._name, self.url = name, f"s3://{name}/store"
        self.options = {"key": "k", "secret": "SeCrEt-0123456789", "endpoint_url": endpoint, **options}
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "SeCrEt-0123456789", "region_name": "us-east-1"}
        self._client = boto3.client("s3", endpoint_url=endpoint, **keys)
        self._client.create_bucket(Bucket=name)
        for path in (path for path in seed.rglob("*") if path.is_file()):
            key = path.relative_to(seed).as_posix()
            if not key.startswith("scratch/"):  # that of a bucket is in each machine's cache
                self._client.put_object(Bucket=name, Key=f"store/{key}", Body=path.read_bytes())

    def files(self) -> list[str]:
        """See `Place`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name)
        return [one["Key"].removeprefix("store/") for page in pages for one in page.get("Contents", ())]

    def uploads(self) -> list[str]:
        """Uploads in pieces that were begun and not ended: they cost, and no listing shows them."""
        return [one["Key"] for one in self._client.list_multipart_uploads(Bucket=self._name).get("Uploads", ())]


class Job:
    """A scene at a place: attempts at one node of one run, each on a machine of its own unless a test says otherwise."""

    def __init__(self, scene: Scene, place: Place, folder: Path) -> None:
        self.scene, self.place, self.folder = scene, place, folder
        folder.mkdir(parents=True)
        self.store = Store.open(place.url, {**place.options})
        self.run: Run = self.store.runs.create({"pipeline": "matrix"})
        spec = {
            "schema_version": 1, "store": self.store.url, "run_id": self.run.id, "node": "node", "stage": scene.component,
            "component": scene.component, "kind": scene.kind, "config": {**scene.config}, "redo": "",
            "promote": f"{scene.kind}/named", "reads_truth": False,
        }  # fmt: skip
        self.spec = self.run.write("specs/node.json", json.dumps(spec))

    def start(
        self,
        crash: str = "",
        *,
        machine: str = "",
        record: Path | None = None,
        arguments: tuple[str, ...] = (),
        **more: str,
    ) -> list[BaseProcess]:
        """Start the stage, a process for each rank. ``crash``: where it dies. ``machine``: one that was there before; empty: a
        new one, with nothing in its cache. ``record``: a file that is told the points that rank 0 passes. ``more``: of the
        environment."""
        name = machine or f"machine-{next(_machines)}"
        environment = {
            **{of: value for of, value in os.environ.items() if not of.startswith(("WFM_", "AWS_"))},
            "WFM_STORE_OPTIONS": json.dumps(dict(self.place.options)) if self.place.options else "",
            "WFM_LEASE_SECONDS": str(LEASE_SECONDS), "WFM_HOME": str(self.folder / name / "home"),
            "WFM_CACHE": str(self.folder / name / "cache"), "OMP_NUM_THREADS": "1", VARIABLE: crash,
            "PYTHONPATH": str(ROOT), **more,
        }  # fmt: skip
        command = ["--spec", self.spec, *(arguments or ("--key-out", str(self.folder / "key")))]
        command += [f"--input={role}={key}" for role, key in self.scene.inputs.items()]
        processes = []
        for place in self._places(self.folder / name / "ranks"):
            told = (self.scene.component, command, environment | place, name, self.log(name))
            processes.append(_server.Process(target=_stage, args=(*told, None if processes else record)))
            processes[-1].start()
        return processes

    def _places(self, folder: Path) -> list[dict[str, str]]:
        """What our own guard tells each rank."""
        if self.scene.ranks == 1:
            return [{}]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        at, size = {"WFM_RANKS_FOLDER": str(folder), "GLOO_SOCKET_IFNAME": "lo"}, str(self.scene.ranks)
        ranks = [str(rank) for rank in range(self.scene.ranks)]
        return [
            {**at, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size} for rank in ranks
        ]

    def log(self, machine: str = "") -> Path:
        """What was printed on one machine."""
        return self.folder / f"{machine}.txt"

    def printed(self) -> str:
        """What was printed, on every machine."""
        return "\n".join(f"-- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.txt")))

    def finish(self) -> None:
        """Run all that is to be run, each call on a machine of its own."""
        for arguments in self.scene.calls():
            self.move()
            until = time.monotonic() + 6 * LEASE_SECONDS + 10
            # ranks hold devices: they do not wait for the lease of the dead, whoever started them starts them again
            while (code := self.end(arguments=arguments)) == TryAgain.exit_code and time.monotonic() < until:
                time.sleep(LEASE_SECONDS / 4)
            assert code == 0, f"{arguments} ended with {code}\n{self.printed()}"

    def end(self, crash: str = "", *, patience: float = PATIENCE, **more: Any) -> int:
        """Start it, wait for its end; its exit code (-9: killed), of ranks the least. No launcher ends the others when one of
        them dies: they do so by themselves."""
        processes = self.start(crash, **more)
        until = time.monotonic() + patience
        for process in processes:
            process.join(max(until - time.monotonic(), 0.0))
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
        assert None not in codes, f"{crash or 'undisturbed'}: {codes} after {patience:g} s\n{self.printed()}"
        return min(code for code in codes if code is not None)

    def move(self) -> None:
        """What lay on the machine is gone with it."""
        for folder in self.folder.iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
        shutil.rmtree(Path(self.place.url, "scratch"), ignore_errors=True)  # of a store on disk

    @property
    def key(self) -> str:
        """The artifact's."""
        return (self.folder / "key").read_text()

    def artifact(self) -> Artifact:
        """What was committed."""
        return self.store.artifact(self.key)

    def outcomes(self) -> list[str]:
        """How the attempts ended, in order; empty: a kill."""
        ends = [one.outcome or {} for one in self.run.read_outcomes("node")]
        for end in ends:
            assert end.get("reason") or end.get("outcome", "done") in ("done", "cached"), f"no reason: {end}"
        return [str(end.get("outcome", "")) for end in ends]


def _stage(
    component: str, command: list[str], environment: dict[str, str], machine: str, log: Path, record: Path | None
) -> None:
    """In the child: become the stage process."""
    from wfm import crash_points
    from wfm.artifacts import lease

    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    lease._machine = lambda: machine  # as a process sees itself in another pod
    socket.gethostname = lambda: machine
    if environment.get("WFM_TEST_CHATTER"):
        crash_points.crash_point.__code__ = _chattered.__code__
    if environment.get("WFM_TEST_SLOW"):
        crash_points.crash_point.__code__ = _slowed.__code__
    if record is not None:
        os.environ["WFM_TEST_RECORD"] = str(record)
        crash_points.crash_point.__code__ = _passed.__code__
    sys.argv = [component, *command]
    runpy.run_module(f"components.{component}", run_name="__main__", alter_sys=True)


def _passed(name: str) -> None:
    """Runs among the names of `wfm.crash_points`, in place of `crash_point`."""
    handle = os.open(os.environ["WFM_TEST_RECORD"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{name}\n".encode())
    os.close(handle)


def _chattered(name: str) -> None:
    """The same, of a stage that prints so many lines of a hundred bytes at each step."""
    if name == "after_step":
        lines = int(os.environ["WFM_TEST_CHATTER"])
        for line in range(lines):
            os.write(1, f"{line:098d}\n".encode())


def _slowed(name: str) -> None:
    """The same, of a stage for which a pass takes long: ``after_step:6=60 …`` (seconds). It says so."""
    import time

    _passes[name] += 1  # type: ignore[name-defined]  # noqa: F821
    for wish in os.environ["WFM_TEST_SLOW"].split():
        at, _, seconds = wish.partition("=")
        if at == f"{name}:{_passes[name]}":  # type: ignore[name-defined]  # noqa: F821
            os.write(1, f"slow at {at}\n".encode())
            until = time.monotonic() + float(seconds)
            while time.monotonic() < until:
                time.sleep(0.01)


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """A scene that nobody killed."""

    key: str
    digest: str
    order: list[str]
    "The points that are passed, as they are passed."
    files: Counter[str]
    "What lies in the store after garbage collection, attempts and runs without their numbers."


def undisturbed(job: Job) -> Undisturbed:
    """Run a scene to its end and look at everything."""
    record = job.folder / "points"
    code = job.end(record=record, arguments=job.scene.calls()[0])
    assert code == 0, job.printed()
    if job.scene.ranges:
        job.finish()
    return Undisturbed(job.key, content(job), record.read_text().split(), left_after_collection(job))


def content(job: Job) -> str:
    """Digest of the committed files and parts."""
    return job.artifact().manifest.digest


_ID = re.compile(r"attempts/[^/]+/")
_NOT_COMPARED = ("runs/", "leases/", "refs/", "probe/", "collections/")


def left_after_collection(job: Job) -> Counter[str]:
    """What garbage collection leaves of everything, except what is said of runs, leases, names and what it did itself."""
    for path in (path for path in Path(job.place.url).rglob(".*.tmp") if NAMELESS.fullmatch(path.name)):
        os.utime(path, (0, 0))  # else one may be at work on it
    report = job.store.gc(wait_seconds=LEASE_SECONDS, min_age_seconds=0.0)
    assert not report.notes, report.notes
    assert not report.unread, report.unread
    return Counter(_ID.sub("attempts/*/", path) for path in job.place.files() if not path.startswith(_NOT_COMPARED))


@contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[Any]:
    """moto's server behind a proxy at `address` that lets one put pass at a time, as S3 does; yields the proxy's class, with
    its URL as `endpoint` and the `plan` of what it spoils."""
    import threading
    from http.server import ThreadingHTTPServer

    from moto.server import ThreadedMotoServer

    from tests.faults.spoiling_proxy import SpoilingProxy

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    upstream = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    upstream.start()
    handler = type("Handler", (SpoilingProxy,), {"upstream": upstream.get_host_and_port()})
    server = ThreadingHTTPServer((address, 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that was killed hangs up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.endpoint = f"http://{address}:{server.server_port}"  # type: ignore[attr-defined]
    yield handler
    server.shutdown()
    server.server_close()
    upstream.stop()
