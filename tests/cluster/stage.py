"""A stage's process inside a pod, as far as the cluster and the store can see one: it opens an attempt, beats, keeps
checkpoints, commits or not, hears SIGTERM or not. The store is the real one; time is the caller's.

What it does is a `Script` by key: how long the work takes, and how each try ends. Of several ranks rank 0 alone writes; the
others end when it does, and it notices a lost one. Not modelled: the lease's own beats (who works on a key is known to `Desk`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.cluster.controllers.pods import annotations, labels
from tests.cluster.server.storage import Json
from wfm.errors import exit_code_of, is_final

if TYPE_CHECKING:
    from wfm.artifacts import Store

INDEX = "batch.kubernetes.io/job-completion-index"
REPLICA = "training.kubeflow.org/replica-index"
KEY, GENERATION = "wfm.dev/key", "wfm.dev/generation"
PEER_SECONDS = 20.0
"""After which a rank notices that another is gone."""


@dataclass(frozen=True)
class End:
    """How a try is to end, `after` so much of work: an outcome, or

    crash         no outcome, exit code 139            oom        killed for its memory
    hang          works no more, and never ends        silent     exit code 0, but nothing committed, no outcome
    commit_fail   commits, then exits with 1           commit_hang   commits, and does not end
    """

    how: str = "done"
    after: float = 0.0


@dataclass
class Script:
    """The work of a key. `ends`: of its tries in order, the last one for all others."""

    seconds: float = 600.0
    interval: float = 60.0
    "Between checkpoints."
    ends: tuple[End, ...] = (End(),)
    heeds: bool = True
    "Whether SIGTERM is heard."
    closing: float = 5.0
    "What a checkpoint at SIGTERM takes."

    def at_pace(self, pace: float) -> "Script":
        """The same in so much of the time."""
        ends = tuple(End(end.how, end.after * pace) for end in self.ends)
        return Script(self.seconds * pace, self.interval * pace, ends, self.heeds, self.closing * pace)


@dataclass
class Progress:
    """What is kept of a key's work in the store's checkpoints, and what was worked in all."""

    kept: float = 0.0
    worked: float = 0.0
    tries: int = 0
    disruptions: int = 0
    holders: list[str] = field(default_factory=list)
    "Pods that work on it now."


@dataclass
class Desk:
    """What all stages of a world share."""

    store: "Store"
    scripts: dict[str, Script]
    told: Callable[[str], None]
    progress: dict[tuple[str, int], Progress] = field(default_factory=dict)
    outcomes: list[tuple[str, str, int, str]] = field(default_factory=list)
    "(run, node, try, outcome) that stages wrote."

    def of(self, key: str, index: int = 0) -> Progress:
        return self.progress.setdefault((key, index), Progress())


class Stage:
    """One process. `ended`: (exit code, reason) when it is over."""

    def __init__(self, desk: Desk, pod: Json, now: float) -> None:
        import json
        from urllib.parse import urlsplit

        self.desk, self.pod = desk, pod
        self.name, self.uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        container = pod["spec"]["containers"][0]
        words = [*container.get("command", ()), *container.get("args", ())]
        self.works = "--spec" in words
        "Whether it is a stage's process, and not a scheduler's or a worker's."
        self.ended: tuple[int, str] | None = None
        self.began = self.at = now
        self.term = 0.0
        self.key, self.rank, self.number, self.index = annotations(pod).get(KEY, ""), 0, 0, 0
        self.hung = self.frozen = False
        self._env = {one["name"]: one.get("value", "") for one in container.get("env", ())}
        if not self.works:
            return
        path = urlsplit(words[words.index("--spec") + 1]).path
        with open(path) as file:
            self.spec: dict[str, Any] = json.load(file)
        self.run = desk.store.runs.of(self.spec["run_id"])
        of = words[words.index("--parts") + 1].partition("/")[2] if "--parts" in words else ""
        self.torch = "torch.distributed.run" in words
        place = int(annotations(pod).get(INDEX) or labels(pod).get(REPLICA) or labels(pod).get(INDEX) or 0)
        self.rank, self.index = (place, 0) if self.torch else (0, place)
        self.script = desk.scripts.get(self.key, Script())
        self.parts = f"{self.index}/{of}" if of else ""
        self.progress = desk.of(self.key, self.index if self.parts else 0)
        self.end = End()
        self._left: float = 0.0
        if self.rank == 0:
            self._open(now)

    @staticmethod
    def identity(pod: Json) -> tuple[str, str]:
        """(key, generation) that a pod works for."""
        return annotations(pod).get(KEY, ""), annotations(pod).get(GENERATION, "1")

    @staticmethod
    def owner(pod: Json) -> str:
        """Uid of what made it."""
        return str((pod["metadata"].get("ownerReferences") or [{"uid": pod["metadata"]["uid"]}])[0]["uid"])

    # -- rank 0

    def _open(self, now: float) -> None:
        node, token = self.spec["node"], self._env.get("WFM_ATTEMPT", "")
        record = {"pod": self.name, "engine": "kubernetes", "ranks": 1, "started": now, "host": self.name}
        notes = {"parts": self.parts} if self.parts else {}
        self.number = self.run.append_attempt(node, {**record, **({"token": token} if token else {}), **notes})
        if not self.parts and self.desk.store.has(self.key):
            self._leave("cached", "", 0)
            return
        same = [
            ended for number in self.run.attempts(node)
            if number != self.number and (ended := self.run.read_outcome(node, number)) is not None
            and (ended.get("key"), ended.get("parts")) == (self.key, notes.get("parts"))
        ]  # fmt: skip
        if is_final([str(one.get("outcome")) for one in same]):
            last = same[-1]
            self._leave(str(last["outcome"]), f"ended before: {last.get('reason')}", None, repeats=1)
            return
        if self.progress.holders:
            self._leave("try_again", f"another process works on {self.key[:12]}", None, lease_held=True)
            return
        self.progress.holders.append(self.uid)
        ends = self.script.ends
        self.end = ends[min(self.progress.tries, len(ends) - 1)]
        self.progress.tries += 1
        rest = self.script.seconds - self.progress.kept
        self._left = min(self.end.after, rest) if self.end.how not in ("done", "commit_fail", "commit_hang") else rest
        self.desk.told(f"{self.name}: try {self.number} works on {self.key[:6]} from {self.progress.kept:.0f} s on")

    def _leave(self, outcome: str, reason: str, code: int | None, **notes: Any) -> None:
        """Write the outcome, and end."""
        if self.parts:
            notes["parts"] = self.parts
        self.run.write_outcome(
            self.spec["node"], self.number, {"outcome": outcome, "reason": reason, "key": self.key, **notes}
        )
        self.desk.outcomes.append((self.run.id, self.spec["node"], self.number, outcome))
        exact = exit_code_of(outcome) if code is None else code
        self._die(exact if not self.torch or exact == 0 else 1, "")  # torchrun blurs codes

    def _die(self, code: int, reason: str) -> None:
        self.ended = (code, reason)
        if self.uid in self.progress.holders:
            self.progress.holders.remove(self.uid)
        self.desk.told(f"{self.name}: ends with {code} {reason}")

    def _keep(self) -> None:
        """Checkpoints by interval."""
        progress = self.progress
        done = progress.kept + self._done
        whole = done // self.script.interval * self.script.interval
        if whole > progress.kept:
            self._done -= whole - progress.kept
            progress.kept = whole
            self.run.write_usage(self.spec["node"], self.number, {"every": 10, "seconds": self.at - self.began})

    _done = 0.0
    "Worked since the last checkpoint."

    # -- time

    def pass_time(self, now: float, peers: list["Stage"]) -> None:
        """Work until `now`. `peers`: the other ranks' processes that live."""
        spent, self.at = now - self.at, now
        if self.ended or not self.works or self.frozen:
            return
        if self.rank:
            first = next((one for one in peers if one.rank == 0), None)
            if first is None and now - self.began > PEER_SECONDS:
                self._die(1, "")
            elif first is not None and first.ended:
                self._die(first.ended[0], "")
            return
        if self.term and self.script.heeds and now - self.term >= self.script.closing:
            self.progress.kept += self._done
            self._done = 0.0
            self._leave("cancelled", "asked to stop", 143)
            return
        if self.hung:
            return
        if self.torch and len(peers) + 1 < self._size(now):
            if now - self.began > PEER_SECONDS and self._peerless(now):
                self._leave("try_again", "a rank is gone", None)
            return
        self._gone = 0.0
        step = min(spent, self._left)
        self._left -= step
        self._done += step
        self.progress.worked += step
        self._keep()
        if self._left <= 0:
            self._finish()

    _gone = 0.0
    _seen = 1

    def _peerless(self, now: float) -> bool:
        self._gone = self._gone or now
        return self._seen > 1 and now - self._gone >= PEER_SECONDS

    def _size(self, now: float) -> int:
        nodes = self._env.get("PET_NNODES", "1").partition(":")[0]
        return int(nodes or 1)

    def meet(self, count: int) -> None:
        """So many ranks are there now."""
        self._seen = max(self._seen, count)

    def _finish(self) -> None:
        how = self.end.how
        if how in ("done", "commit_fail", "commit_hang"):
            self.progress.kept += self._done
            self._done = 0.0
            if not self.parts:
                commit(self.desk.store, self.key, self.spec)
                self.desk.told(f"{self.name}: commits {self.key[:6]}")
            if how == "commit_hang":
                self.hung = True
            elif how == "commit_fail":
                self._die(1, "")
            else:
                self._leave("done", "", 0)
        elif how == "hang":
            self.hung = True
            self.desk.told(f"{self.name}: hangs")
        elif how == "silent":
            self._die(0, "")
        elif how == "crash":
            self._die(139, "")
        elif how == "oom":
            self._die(137, "OOMKilled")
        else:
            self._leave(how, f"it was to end as {how}", None)

    def sigterm(self, now: float) -> None:
        self.term = self.term or now
        if not self.works or (self.rank and self.script.heeds):
            self._end_at_once(143)

    def _end_at_once(self, code: int) -> None:
        self.ended = (code, "")

    def kill(self, reason: str = "") -> None:
        """SIGKILL: nothing is written."""
        if self.ended:
            return
        if self.works:
            self._die(137, reason)
        else:
            self.ended = (137, reason)


def commit(store: "Store", key: str, spec: dict[str, Any]) -> None:
    """What a stage leaves when it is through."""
    if store.has(key):
        return
    with store.attempt(key) as attempt:
        (attempt.path / "made.txt").write_text(key)
        attempt.commit(stage=spec.get("stage", "train_world_model"), kind="model")
