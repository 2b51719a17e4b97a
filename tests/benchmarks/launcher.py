"""What a launcher costs, and how quick it is, against the model API server of ``tests/cluster`` over HTTP and in real time.

    python -m tests.benchmarks.launcher watch --jobs 500 --minutes 2
    python -m tests.benchmarks.launcher death --times 5

``watch``: one process follows so many trainings of two pods each, which run. Its memory beside that of the same process with
none, its requests a minute once all run (and what they were while they came up), its processor time a minute. ``death``: from
the kill of a pod's process to the first step of the next attempt, in the words of who waits: the kubelet's report, the
controller's, the launcher's record and deletion, the next job, its pod. Server, controllers, kubelets and stages are models,
and are there at once: what a real cluster takes to place and pull comes on top. One JSON line each.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.paired import print_line

ROOT = Path(__file__).resolve().parents[2]
PAUSE_SECONDS = 0.1


def serve(many: bool) -> None:
    """The API server and its controllers (`many`: in their place one that only starts pods), until this process is ended."""
    from tests.cluster.controllers import ALL, Controllers, Options
    from tests.cluster.controllers.kueue import webhook
    from tests.cluster.doors import DirectDoor
    from tests.cluster.server.api import Api
    from tests.cluster.server.faults import Faults
    from tests.cluster.server.http import HttpServer
    from tests.cluster.server.storage import Key, Storage
    from tests.cluster.world import NAMESPACE

    storage, options = Storage(), Options()
    api = Api(storage, time.time, random.Random(1))
    if not many:
        api.admission.append(webhook(api, lambda: options.integrations))
    for name in ("default", "kube-node-lease", NAMESPACE):
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}}
        storage.put(Key("namespaces", "", name), document)
    print(HttpServer(api, Faults(random.Random(2))).start().url, flush=True)
    controllers = Controllers(api, ALL, options)
    while True:
        run_pods(DirectDoor(api)) if many else controllers.settle()
        time.sleep(PAUSE_SECONDS)


def run_pods(door: Any) -> None:
    """Two running pods for each training that has none, in place of controllers, a queue and kubelets: a model of these in one
    process would be what is measured."""
    from tests.cluster.world import NAMESPACE

    for job in door.all("pytorchjobs.kubeflow.org", NAMESPACE):
        name = job["metadata"]["name"]
        if job.get("status"):
            continue
        template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for index in range(2):
            labels = {**template["metadata"]["labels"], "training.kubeflow.org/replica-index": str(index)}
            meta = {
                "name": f"{name}-worker-{index}",
                "labels": labels,
                "annotations": template["metadata"]["annotations"],
            }
            door.create("pods", NAMESPACE, {"metadata": meta, "spec": {**template["spec"], "nodeName": "node-0"}})
            container = {"name": "pytorch", "state": {"running": {"startedAt": now}}}
            status = {"phase": "Running", "containerStatuses": [container]}
            door.patch("pods", NAMESPACE, meta["name"], {"status": status}, status=True)
        door.patch("pytorchjobs.kubeflow.org", NAMESPACE, name, {"status": {"startTime": now}}, status=True)


def follow(folder: Path, url: str, minutes: float) -> None:
    """A launcher over the requests of a file; says what it cost once all their pods run."""
    from tests.cluster.world import NAMESPACE, settings
    from wfm.artifacts import Store
    from wfm.cluster.api import Api
    from wfm.cluster.launcher import Launcher, RealClock
    from wfm.cluster.records import read_said
    from wfm.cluster.request import JobRequest

    store = Store.open(folder / "store", {"fsync": False})
    known = settings()
    api = Api.connect(namespace=NAMESPACE, url=url)
    launcher = Launcher(api, store, known, RealClock())
    before = resident()
    requests = []
    for line in (folder / "requests.json").read_text().splitlines():
        spec, spec_url, key = json.loads(line)
        requests.append(JobRequest.of_spec(spec, spec_url, {}, key, 1))
        launcher.add(requests[-1])
    began, settled, at_start = time.time(), 0.0, (0, 0.0)
    while not settled or time.time() < settled + 60 * minutes:
        time.sleep(launcher.tick())
        assert not launcher.ended, launcher.ended
        if not settled and time.time() > began + 5:
            said = [read_said(store.runs.of(one.run_id), one.node) for one in requests]
            if all(one is not None and one.words.startswith("running: 2 of 2") for one in said):
                settled, at_start = time.time(), (api.requests, time.process_time())
                print("all run", flush=True)
    print(json.dumps({
        "memory_mib": round(resident(), 1), "memory_of_jobs_mib": round(resident() - before, 1),
        "requests_per_minute": round((api.requests - at_start[0]) / minutes, 1), "requests_to_start": at_start[0],
        "cpu_seconds_per_minute": round((time.process_time() - at_start[1]) / minutes, 2),
        "seconds_to_start": round(settled - began, 1), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }), flush=True)  # fmt: skip
    os._exit(0)


def resident() -> float:
    """Of this process [MiB]."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def process(*arguments: str, **more: Any) -> "subprocess.Popen[str]":
    """This file as another process."""
    command = [sys.executable, "-P", "-m", "tests.benchmarks.launcher", *arguments]
    given: dict[str, Any] = {"stdout": subprocess.PIPE, **more}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **given)


def watch(jobs: int, minutes: float) -> None:
    """See the module."""
    from tests.cluster.stage import Script
    from tests.cluster.world import World

    server = process("serve", "--many")
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            World(Path(folder), url=url, machines=1) as world,
        ):
            lines = []
            for number in range(jobs):
                script = Script(seconds=86400.0, interval=86400.0)
                asked = world.ask(f"train-{number}", replicas=2, gpu=1, timeout=90000.0, script=script)
                request = asked.request
                spec = {
                    "stage": request.stage, "component": request.component, "node": request.node, "run_id": request.run_id,
                    "job_kind": request.kind, "image": request.image, "resources": request.resources.resolved(),
                    "timeout_seconds": request.timeout_seconds, "retries": request.retries,
                }  # fmt: skip
                lines.append(json.dumps([spec, request.spec_url, request.key]))
            (Path(folder) / "requests.json").write_text("\n".join(lines))
            told = Path(folder) / "told.txt"
            with told.open("w") as out:
                launcher = process("follow", "--folder", folder, "--url", url, "--minutes", str(minutes), stdout=out)
            assert launcher.wait() == 0
            figures = json.loads(told.read_text().splitlines()[-1])
            print_line(what="watch", jobs=jobs, pods=2 * jobs, minutes=minutes, **figures)
    finally:
        server.kill()


def death(times: int) -> None:
    """See the module."""
    from tests.cluster.world import World

    server = process("serve")
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    try:
        with tempfile.TemporaryDirectory() as folder, World(Path(folder), url=url) as world:
            found = [one_death(world, url, f"train-{number}") for number in range(times)]
        median, least, most = statistics.median(found), min(found), max(found)
        print_line(what="death", times=times, seconds=round(median, 2), least=round(least, 2), most=round(most, 2))
    finally:
        server.kill()


def one_death(world: Any, url: str, name: str) -> float:
    """Seconds from a kill to the first step of the next attempt."""
    from tests.cluster.stage import Script
    from tests.cluster.world import NAMESPACE
    from wfm.cluster.api import Api
    from wfm.cluster.launcher import Launcher, RealClock

    asked = world.ask(name, gpu=1, script=Script(seconds=86400.0))
    launcher = Launcher(Api.connect(namespace=NAMESPACE, url=url), world.store, world.settings, RealClock())
    ticking = threading.Thread(target=launcher.run, args=(asked.request,), daemon=True)
    ticking.start()
    killed, first = 0.0, 0
    while True:
        world.step()
        works = [one for one in world.kubelet.processes.values() if one.works and not one.ended and one.number]
        if works and not killed:
            time.sleep(0.5)
            works[0].kill()
            killed, first = time.time(), works[0].number
        elif killed and works and works[0].number > first:
            break
        time.sleep(0.02)
    seconds = time.time() - killed
    asked.run.request_cancel("the benchmark")
    while ticking.is_alive():
        world.step()
        time.sleep(0.02)
    return seconds


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["watch", "death", "serve", "follow"])
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("."))
    parser.add_argument("--url", default="")
    parser.add_argument("--many", action="store_true")
    given = parser.parse_args()
    if given.what == "serve":
        serve(given.many)
    elif given.what == "follow":
        follow(given.folder, given.url, given.minutes)
    elif given.what == "watch":
        watch(given.jobs, given.minutes)
    else:
        death(given.times)


if __name__ == "__main__":
    main()
