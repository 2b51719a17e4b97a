"""Seeded schedules: a few runs that need keys, launchers that come and go, and everything that a cluster does to them.

`play(seed, folder)` is one: it goes wrong at random for a while, then all is well again until the last launcher is through, and
the invariants are looked at. The same seed plays the same schedule.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.controllers import ALL, Options
from tests.cluster.controllers.pods import phase
from tests.cluster.invariants import Invariants
from tests.cluster.stage import End, Script
from tests.cluster.world import NAMESPACE, Asked, Launching, World, settings

HORIZON = 900.0
"""Until then things go wrong [s]."""
LIMIT = 6 * 3600.0
RETRIES = 30
"""So many that only what is final ends a run before it is made."""
_SLOW = tuple(table.name for table in ALL)


@dataclass
class Played:
    """What a schedule came to."""

    world: World
    invariants: Invariants
    ends: dict[tuple[str, str], Any] = field(default_factory=dict)
    expected: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    lost: int = 0


class Schedule:
    """One seed at work."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = rng = random.Random(seed)
        random.seed(seed)  # of the launcher's own jitter
        options = Options(
            pods_ready_timeout=rng.choice([0.0, 0.0, 300.0]), requeue_limit=20, toleration=rng.choice([60.0, 300.0]),
            integrations=Options.integrations if rng.random() < 0.9 else ("batch/job",),
        )  # fmt: skip
        kind = rng.choices(("torchjob", "trainjob", "daskjob", "container", "parts"), (4, 2, 2, 2, 1))[0]
        self.world = World(folder, seed=seed, direct=True, options=options, machines=3, quota=16)
        if kind == "trainjob":
            self.world.settings = settings(training_job="trainjob")
        self.played = Played(self.world, Invariants(self.world))
        self.kind = kind
        self.asked: list[Asked] = []
        self._ask()
        self.launching: dict[Asked, list[Launching]] = {one: [] for one in self.asked}
        self.over: dict[Asked, Any] = {}

    # -- what is asked for

    def _ask(self) -> None:
        rng, world = self.rng, self.world
        kind = {"trainjob": "torchjob", "parts": "container"}.get(self.kind, self.kind)
        many = {"torchjob": 2, "daskjob": 2}.get(kind, 1)
        for number in range(rng.choice([1, 1, 2])):
            ends = tuple(
                End(rng.choice(("try_again", "crash", "oom", "silent", "bug", "hang")), rng.uniform(20, 200))
                for _ in range(rng.choice([0, 0, 0, 1, 2]))
            )  # fmt: skip
            if sum(end.how in ("bug", "silent") for end in ends) > 1:
                ends = ends[:1]
            last = End(rng.choices(("done", "wrong_input", "commit_fail", "commit_hang"), (12, 1, 1, 1))[0], 50)
            if self.kind == "parts" and last.how.startswith("commit"):
                last = End()  # ranges commit nothing
            script = Script(
                rng.uniform(100, 500), 60, (*ends, last), heeds=rng.random() < 0.7, closing=rng.choice([2.0, 8.0])
            )
            one = world.ask(
                f"node{number}", kind=kind, replicas=many if self.kind != "parts" else 2,
                gpu=rng.choice([1, 4, 8]) // many or 1, parts=3 if self.kind == "parts" else 0, retries=RETRIES,
                timeout=1200, grace=rng.choice([10, 30]), script=script,
            )  # fmt: skip
            self.asked.append(one)
            self.played.invariants.hangs += sum(end.how == "hang" for end in ends)
            self.played.lost += len(ends) * (3 if self.kind == "parts" else 1)
            if rng.random() < 0.25:  # another run needs the same
                self.asked.append(world.ask(
                    f"node{number}", kind=kind, key=one.key, retries=RETRIES, timeout=1200, parts=one.request.parts,
                    replicas=one.request.resources.replicas, gpu=one.request.resources.gpu, script=script,
                    grace=one.request.resources.grace_seconds,
                ))  # fmt: skip
        self.played.invariants.asked = self.asked
        for one in self.asked:
            finals = (
                ("wrong_input",) if world.desk.scripts[one.key].ends[-1].how == "wrong_input" else ("done", "cached")
            )
            self.played.expected[one.run.id, one.request.node] = finals

    # -- what goes wrong

    def launch(self, one: Asked) -> None:
        if one not in self.over:
            self.launching[one].append(
                self.world.launcher(one, name=f"launcher {sum(map(len, self.launching.values()))}")
            )

    def _live(self) -> list[tuple[Asked, Launching]]:
        return [(one, each) for one in self.asked for each in self.launching[one] if each in self.world.launchers]

    def crash(self) -> None:
        if live := self._live():
            one, each = self.rng.choice(live)
            (self.world.crash if self.rng.random() < 0.6 else self.world.detach)(each)
            self._soon(lambda: self.launch(one), 5, 120)

    def _soon(self, do: Callable[[], None], least: float, most: float) -> None:
        self.world.at(self.world.clock.now() - self.world.began + self.rng.uniform(least, most), do)

    def second(self) -> None:
        self.launch(self.rng.choice(self.asked))

    def restart_server(self) -> None:
        server = self.world.front
        if not server.up:
            return
        self.world.tell("the API server stops")
        server.stop()
        self.world.storage.compact()
        self._soon(self._server_back, 1, 60)

    def _server_back(self) -> None:
        if not self.world.front.up:
            self.world.tell("the API server is back")
            self.world.front.start()

    def compact(self) -> None:
        self.world.tell("the history is compacted")
        self.world.storage.compact()

    def flaky(self) -> None:
        self.world.tell("requests fail now and then")
        self.world.faults.rate = 20
        self._soon(self._calm, 30, 200)

    def _calm(self) -> None:
        self.world.faults.rate = 0

    def _a_pod(self) -> dict[str, Any] | None:
        found = [pod for pod in self.world.pods() if phase(pod) in ("Pending", "Running")]
        return self.rng.choice(found) if found else None

    def disturb_pod(self) -> None:
        pod = self._a_pod()
        if pod is None:
            return
        name, kubelet, door = pod["metadata"]["name"], self.world.kubelet, self.world.door
        how = self.rng.choice(("drained", "evicted by its node", "out of memory", "deleted by somebody"))
        self.world.tell(f"{name} is {how}")
        self.played.lost += 1
        if how == "drained":
            door.evict(NAMESPACE, name)
        elif how == "evicted by its node":
            kubelet.evict(name)
        elif how == "out of memory":
            kubelet.oom(name)
        else:
            door.delete("pods", NAMESPACE, name)

    def lose_node(self) -> None:
        kubelet = self.world.kubelet
        up = [name for name, machine in kubelet.machines.items() if machine.up]
        if len(up) < 2:
            return
        name = self.rng.choice(up)
        reachable = self.rng.random() < 0.3
        self.world.tell(f"{name} is lost{', its processes go on' if reachable else ''}")
        self.played.lost += 2
        (kubelet.lose if reachable else kubelet.die)(name)
        self._soon(lambda: self._node_back(name), 60, 600)

    def _node_back(self, name: str) -> None:
        if not self.world.kubelet.machines[name].up:
            self.world.tell(f"{name} is back")
            self.world.kubelet.back(name)

    def remove_node(self) -> None:
        """The machine is taken away for good, and another comes."""
        from tests.cluster.kubelet import Machine

        kubelet = self.world.kubelet
        name = self.rng.choice([name for name, machine in kubelet.machines.items() if machine.up])
        self.world.tell(f"{name} is removed, another comes")
        self.played.lost += 2
        kubelet.die(name)
        self.world.door.delete("nodes", "", name)
        self.world.door.delete("leases.coordination.k8s.io", "kube-node-lease", name)
        kubelet.add(Machine(f"node-{len(kubelet.machines)}"))

    def delete_job(self) -> None:
        self.played.lost += 1
        self.world.delete_job(self.rng.choice(self.asked).key)

    def ttl(self) -> None:
        """What TTL does: a job that is over disappears."""
        for job in self.world.jobs():
            conditions = job.get("status", {}).get("conditions", ())
            if any(
                one["type"] in ("Succeeded", "Failed", "Complete") and one["status"] == "True" for one in conditions
            ):
                self.world.delete_job(job["metadata"]["annotations"]["wfm.dev/key"])
                return

    def preempt(self) -> None:
        """Another team's urgent job needs the quota."""
        if "jobs.batch" in self.world.api.quota:
            return  # they wait for theirs, too
        self.world.tell("an urgent job of another team comes")
        self.played.lost += 2
        name = f"urgent-{self.rng.getrandbits(20)}"
        labels = {"kueue.x-k8s.io/queue-name": "research", "kueue.x-k8s.io/priority-class": "urgent"}
        container = {"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "8"}}}
        spec = {
            "completions": 2, "parallelism": 2, "completionMode": "Indexed",
            "template": {"spec": {"containers": [container], "restartPolicy": "Never"}},
        }  # fmt: skip
        self.world.door.create("jobs.batch", NAMESPACE, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        self._soon(
            lambda: self.world.door.delete("jobs.batch", NAMESPACE, name, propagationPolicy="Background"), 100, 400
        )

    def quota(self) -> None:
        self.world.tell("the namespace's quota of jobs is used up")
        for kind in (
            "pytorchjobs.kubeflow.org",
            "trainjobs.trainer.kubeflow.org",
            "jobs.batch",
            "daskjobs.kubernetes.dask.org",
        ):
            self.world.api.quota[kind] = 0
        self._soon(self.world.api.quota.clear, 60, 300)

    def slow(self) -> None:
        lazy = self.rng.sample(_SLOW, 4)
        self.world.tell(f"slow: {', '.join(lazy)}")
        self.world.slow = lambda: lazy
        self._soon(self._quick, 20, 120)

    def _quick(self) -> None:
        self.world.slow = lambda: ()

    def deactivate(self) -> None:
        one = self.rng.choice(self.asked)
        if self.world.workload(one.key) is None or self.kind in ("daskjob", "parts"):
            return
        self.world.tell(f"the workload of {one.request.node} is deactivated")
        self.played.invariants.excused.add(one.key)
        self.played.lost += 1
        for each in self.asked:
            if each.key == one.key:
                self.played.expected[each.run.id, each.request.node] = ()
        self.world.change_workload(one.key, {"spec": {"active": False}})

    def cancel(self) -> None:
        one = self.rng.choice(self.asked)
        if one.run.id not in self.played.invariants.cancelled and one not in self.over:
            self.played.invariants.cancel(one)
            self.played.expected[one.run.id, one.request.node] = ("cancelled", "done", "cached")
            for each in self.asked:
                if each.key == one.key and each is not one:
                    self.played.expected[each.run.id, each.request.node] += ()

    EVENTS = (
        (crash, 6), (second, 2), (restart_server, 2), (compact, 2), (flaky, 3), (disturb_pod, 6), (lose_node, 2),
        (remove_node, 1), (delete_job, 2), (ttl, 2), (preempt, 2), (quota, 1), (slow, 3), (deactivate, 0.5), (cancel, 1.5),
    )  # fmt: skip

    # -- playing

    def play(self) -> Played:
        world, rng = self.world, self.rng
        events, weights = zip(*self.EVENTS, strict=True)
        for one in self.asked:
            world.at(rng.uniform(0, 60), lambda one=one: self.launch(one))
        for _ in range(rng.randint(2, 7)):
            event = rng.choices(events, weights)[0]
            world.at(rng.uniform(20, HORIZON), lambda event=event: event(self))
        world.at(HORIZON + 300, self._calm_down)
        world.until(self._over, LIMIT)
        world.go(rng.choice([0.0, 60.0, 240.0]))
        for one in self.asked:
            self.played.ends[one.run.id, one.request.node] = self.over[one]
        # the end of one range may take those beside it along
        self.played.invariants.finish(self.played.ends, lost=self.played.lost * (2 if self.kind == "parts" else 1))
        self._compare()
        return self.played

    def _over(self) -> bool:
        for one, each in self._live():
            if one.key in each.ended:
                end = each.ended[one.key]
                world = self.world
                world.tell(f"{each.name} ends with {one.request.node}: {end.outcome} {end.reason}")
                world.launchers.remove(each)
                if end.outcome == "try_again" and "given up for now" in end.reason:
                    self.launch(one)  # whoever started it starts it again
                elif one not in self.over:
                    self.over[one] = end
        return len(self.over) == len(self.asked) and not self.world.due and not self._live()

    def _calm_down(self) -> None:
        self._calm()
        self._quick()
        self._server_back()
        self.world.api.quota.clear()
        for name in list(self.world.kubelet.machines):
            if self.world.door.find("nodes", "", name):
                self._node_back(name)
        for one in self.asked:
            if one not in self.over and not any(each in self.world.launchers for each in self.launching[one]):
                self.launch(one)

    def _compare(self) -> None:
        for place, wanted in self.played.expected.items():
            end = self.played.ends[place]
            if wanted and end.outcome not in wanted:
                words = f"{place[1]} ended as {end.outcome} ({end.reason}), and not as {' or '.join(wanted)}"
                self.played.invariants.fail(Invariants.NAMES[4], words)


def play(seed: int, folder: Path) -> Played:
    """Play one; whoever calls looks at `invariants`, and closes the world."""
    schedule = Schedule(seed, folder)
    try:
        return schedule.play()
    except AssertionError as error:
        schedule.played.invariants.fail("it comes to an end", str(error).splitlines()[0])
        return schedule.played
