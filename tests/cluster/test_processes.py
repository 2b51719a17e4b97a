"""Ten schedules in real time: the API server a process, launchers as ``python -m components.launch_job``, and all of them
killed at random.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.derivation import ROOT, code_id
from components.entrypoint import node_key
from tests.cluster.controllers.pods import phase
from tests.cluster.invariants import Invariants
from tests.cluster.serve import Cluster
from tests.cluster.stage import End, Script
from tests.cluster.world import NAMESPACE, Asked, World

PATIENCE = {
    "image_pull_seconds": 20, "unschedulable_seconds": 20, "queue_ignored_seconds": 20, "start_seconds": 30,
    "lost_node_seconds": 4, "poll_seconds": 1,
}  # fmt: skip
ENDED = {0: "done", 78: "wrong_input", 143: "cancelled", 1: "bug"}
LONGEST = 120.0
"""Of one schedule [s]; quiet machines need 30."""
pytestmark = pytest.mark.long


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path)
    found.start()
    yield found
    found.kill()


class Play:
    """A schedule in real time."""

    def __init__(self, seed: int, folder: Path, cluster: Cluster) -> None:
        self.rng, self.folder, self.cluster = random.Random(seed), folder, cluster
        self.world = World(folder / "world", url=cluster.url, seed=seed, patience=PATIENCE, machines=3, pace=1.0)
        self.world.kubelet.start_seconds = 0.3
        self.look = Invariants(self.world)
        self.processes: list[tuple[Asked, subprocess.Popen[bytes]]] = []
        self.over: dict[Asked, str] = {}
        self.down_until = 0.0
        self.lost = 0
        (folder / "cluster.json").write_text(json.dumps(self.world.settings.resolved()))

    def ask(self) -> Asked:
        """A node whose key `launch_job` finds by itself."""
        rng = self.rng
        kind = rng.choice(["torchjob", "torchjob", "container"])
        ends = tuple(
            End(rng.choice(("try_again", "crash", "oom")), rng.uniform(0.5, 2)) for _ in range(rng.choice([0, 1]))
        )
        self.lost += len(ends)
        script = Script(rng.uniform(2, 6), 1.0, (*ends, End()), heeds=rng.random() < 0.6, closing=0.3)
        made = self.world.ask("raw", kind=kind, gpu=4, replicas=2 if kind == "torchjob" else 1, retries=20, grace=2)
        spec = {
            "schema_version": 1, "store": self.world.store.url, "run_id": made.run.id, "node": "raw",
            "stage": "simulate_videos", "component": "simulate_videos", "kind": "raw_videos", "config": {},
            "redo": f"{rng.getrandbits(64):x}", "promote": "", "reads_truth": False, "job_kind": kind, "image": "training",
            "resources": made.request.resources.resolved(), "timeout_seconds": 120.0, "retries": 20, "parts": 0,
            "code": code_id("simulate_videos", ()),
        }  # fmt: skip
        url = made.run.write("specs/raw.json", json.dumps(spec), private=True)
        key = node_key(spec, {}, self.world.store)
        self.world.desk.scripts[key] = script
        return Asked(made.run, replace(made.request, key=key, spec_url=url))

    def launch(self, one: Asked) -> None:
        words = [
            "--spec",
            one.request.spec_url,
            "--cluster",
            str(self.folder / "cluster.json"),
            "--api",
            self.cluster.url,
        ]
        log = (self.folder / "launchers.txt").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "components.launch_job", *words], stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), "WFM_HOME": str(self.folder / "home"), "PYTHONFAULTHANDLER": "1",
                 "WFM_STORE_OPTIONS": json.dumps({"fsync": False})},
        )  # fmt: skip
        self.processes.append((one, process))
        self.world.tell(f"launcher {process.pid} starts")

    def collect(self) -> None:
        """What launchers have come to; one that was stopped is followed by another."""
        for one, process in list(self.processes):
            code = process.poll()
            if code is None:
                continue
            self.processes.remove((one, process))
            self.world.tell(f"launcher {process.pid} ends with {code}")
            if code in ENDED:
                self.over.setdefault(one, ENDED[code])
            elif one not in self.over and not any(other is one for other, _ in self.processes):
                self.launch(one)

    def disturb(self) -> None:
        rng, world = self.rng, self.world
        what = rng.choice(["kill launcher", "stop launcher", "second launcher", "server", "pod", "pod", "node", "job"])
        world.tell(what)
        live = [process for _, process in self.processes]
        if what == "kill launcher" and live:
            rng.choice(live).kill()
        elif what == "stop launcher" and live:
            rng.choice(live).send_signal(signal.SIGTERM)
        elif what == "second launcher":
            self.launch(rng.choice(self.look.asked))
        elif what == "server":
            self.cluster.kill()
            self.down_until = time.monotonic() + rng.uniform(0.2, 3)
        elif what == "pod" and (pods := [pod for pod in world.pods() if phase(pod) == "Running"]):
            self.lost += 1
            world.door.evict(NAMESPACE, rng.choice(pods)["metadata"]["name"])
        elif what == "node":
            name = rng.choice([name for name, machine in world.kubelet.machines.items() if machine.up])
            self.lost += 2
            world.kubelet.die(name)
            world.at(time.time() - world.began + 8, lambda: world.kubelet.back(name))
        elif what == "job":
            self.lost += 1
            world.delete_job(rng.choice(self.look.asked).key)

    def play(self) -> None:
        self.look.asked = [self.ask() for _ in range(self.rng.choice([1, 2]))]
        for one in self.look.asked:
            self.launch(one)
        end, next_ = time.monotonic() + LONGEST, time.monotonic() + self.rng.uniform(3, 5)
        left = self.rng.randint(2, 5)
        while len(self.over) < len(self.look.asked) or self.processes:
            if time.monotonic() > end:
                raise AssertionError(f"not over\n{self.told()}")
            if self.down_until and time.monotonic() >= self.down_until:
                self.down_until = 0.0
                self.cluster.start()
            self.world.step()
            self.collect()
            if not self.down_until:  # it may go at any moment
                self.look.poll()
                if left and time.monotonic() >= next_:
                    left, next_ = left - 1, time.monotonic() + self.rng.uniform(1, 4)
                    self.disturb()
            time.sleep(0.1)
        for name, machine in self.world.kubelet.machines.items():
            if not machine.up:
                self.world.kubelet.back(name)
        self.world.pass_time(3)

    def told(self) -> str:
        """What happened, and where launchers that still live stand."""
        for _, process in self.processes:
            process.send_signal(signal.SIGABRT)
            process.wait()
        return f"{self.world.timeline()}\n{(self.folder / 'launchers.txt').read_text()[-20000:]}"


@pytest.mark.parametrize("seed", range(10))
def test_invariants_hold_in_real_time(
    seed: int, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WFM_HOME", str(tmp_path / "home"))
    play = Play(seed, tmp_path, cluster)
    try:
        play.play()
        ends = {(one.run.id, one.request.node): _Told(outcome) for one, outcome in play.over.items()}
        play.look.finish(ends, lost=play.lost)
        assert set(play.over.values()) == {"done"}, play.told()
        assert not play.look.broken, f"{play.look.broken}\n{play.told()}"
        assert not any(play.world.holding(one.key) for one in play.look.asked)
    finally:
        for _, process in play.processes:
            process.kill()
            process.wait()


class _Told:
    """What a process told by its exit code."""

    def __init__(self, outcome: str) -> None:
        self.outcome, self.reason = outcome, ""


def test_the_journal_brings_everything_back(cluster: Cluster, tmp_path: Path) -> None:
    from tests.cluster.doors import HttpDoor

    door = HttpDoor.at(cluster.url)
    made = door.create(
        "pods", "default", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    )
    door.create("pods", "default", {"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    door.delete("pods", "default", "q")
    cluster.kill()
    cluster.start()
    found: Any = door.find("pods", "default", "p")
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert door.find("pods", "default", "q") is None
    again = door.create(
        "pods", "default", {"metadata": {"name": "r"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    )
    assert int(again["metadata"]["resourceVersion"]) > int(found["metadata"]["resourceVersion"])
