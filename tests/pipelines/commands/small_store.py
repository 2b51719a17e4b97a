"""A store in which every command has something to show: runs in each state, a dataset, a model, names; always the same."""

import dataclasses
import json
import struct
import time
from pathlib import Path

from pipelines.engines.schedule_book import Kept
from pipelines.request import Request
from pipelines.runs.state import NodeState, RunState
from pipelines.wfm_home import write_private
from tests.pipelines.commands.test_search import dataset, embeddings
from tests.pipelines.engines.argo.compiled import SETTINGS
from wfm.artifacts import Store
from wfm.artifacts.runs import Run

DONE, FAILED, NEVER, GIVEN = (
    "20260101T030000000-0badc0de",
    "20260102T030000000-1badc0de",
    "20260102T030000000-2badc0de",
    "tick-1",
)
BEGAN = 1767236400.0  # 2026-01-01 03:00 UTC
NEXT_DAY = BEGAN + 86400.0
RAN, LEFT = 30 * 3600, 50 * 3600
LONG = "train_tokenizer_continuous"
_ODD = "the [s] of it, and [h], is no markup: [bold]not so[/bold] "


_JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: train, namespace: wfm}
spec:
  template:
    spec:
      restartPolicy: Always
      containers: [{name: main, image: "train:latest", resources: {limits: {nvidia.com/gpu: 8}}}]
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: all, namespace: wfm}
spec: {hard: {requests.nvidia.com/gpu: "4"}}
"""


_QUEUES = """
apiVersion: kueue.x-k8s.io/v1beta1
kind: ResourceFlavor
metadata: {name: any}
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: ClusterQueue
metadata: {name: all}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: [cpu, memory, ephemeral-storage, nvidia.com/gpu]
    flavors:
    - name: any
      resources:
      - {name: cpu, nominalQuota: "64"}
      - {name: memory, nominalQuota: 512Gi}
      - {name: ephemeral-storage, nominalQuota: 1Ti}
      - {name: nvidia.com/gpu, nominalQuota: "4"}
---
apiVersion: kueue.x-k8s.io/v1beta1
kind: LocalQueue
metadata: {name: research, namespace: wfm}
spec: {clusterQueue: all}
"""


def make_files(folder: Path) -> None:
    """Files that commands are asked about: objects of a cluster, a run file, a file of tensors."""
    (folder / "jobs.yaml").write_text(_JOB)
    (folder / "small.toml").write_text(
        'pipeline = "curate"\nprofile = "smoke"\n[set.select_clips]\nminimum_motion = 0.01\n'
    )
    (folder / "cluster.json").write_text(json.dumps(SETTINGS.resolved()))
    (folder / "queues.yaml").write_text(_QUEUES)
    head = json.dumps({"layer.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    (folder / "some.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(24))


def make(store: Store) -> None:
    """Fill an empty store."""
    made = dataset(store, {"embeddings": embeddings(store).key}, "curated")
    with store.attempt("1" * 64) as attempt:
        (attempt.path / "model.json").write_text("{}")
        model = attempt.commit(stage="publish_model", kind="model", inputs={"dataset": made.key}, counts={"outputs": 1})
    store.promote("model", "diffusion", model.key)
    steps = {
        "ingest_videos": NodeState(stage="ingest_videos", state="cached", key="2" * 64, note="9 in, 9 out"),
        "write_shards": NodeState(
            stage="write_shards", state="done", key=made.key, started=BEGAN, ended=BEGAN + 75, attempts=1,
            peak_bytes=123 << 20, note="9 in, 7 out; left out: static 1, text_overlay 1",
        ),
    }  # fmt: skip
    _run(store, DONE, "done", steps, ended=BEGAN + 80)
    steps = {
        **steps,
        LONG: NodeState(
            stage="train_tokenizer", state="failed", outcome="wrong_input", reason=_ODD * 3, attempts=2, attempt=2,
            started=NEXT_DAY, ended=NEXT_DAY + 3725, peak_bytes=1234 << 20,
        ),
        "train_diffusion": NodeState(stage="train_model", state="not_run", reason=f"{LONG} failed"),
    }  # fmt: skip
    run = _run(store, FAILED, "failed", steps, started=NEXT_DAY, ended=NEXT_DAY + 3730)
    for number in (1, 2):
        run.append_attempt(LONG, {"ranks": 1, "started_at": f"2026-01-02T03:0{number}:00.000Z"})
        run.write_log(LONG, number, f"03:00:0{number} INFO    wfm.x: line {number} of [s] and [h]\n")
        told = {"outcome": "wrong_input", "reason": "bad", "cpu_seconds": 7.0, "gpu_seconds": 0.0}
        told |= {"finished_at": f"2026-01-02T03:0{number}:30.000Z"}
        run.write_outcome(LONG, number, told)
    store.runs.create({"pipeline": "curate", "profile": "smoke", "nodes": []}, NEVER)
    now = time.time()
    steps = {
        "split_clips": NodeState(stage="split_clips", state="waiting"),
        "ingest_videos": NodeState(
            stage="ingest_videos", state="running", started=now - RAN, attempts=1, note="3 of 9 videos",
            ends_at=now + LEFT,
        ),
    }  # fmt: skip
    _run(store, GIVEN, "running", steps, host="another", started=now - RAN, updated=now + 3600)


def _moment(unix: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(unix))


def make_home(home: Path, store: Store) -> None:
    """Of this user: a schedule that was served, the last time two days and a bit ago."""
    asked = dataclasses.asdict(Request("curate", profile="smoke", videos="/videos/{date:%Y-%m-%d}"))
    kept = Kept(name="curate-smoke", cron="0 3 * * *", store=store.url, request=asked, since=time.time() - 2 * 86400)
    (home / "schedules").mkdir(mode=0o700, parents=True)
    write_private(home / "schedules" / "curate-smoke.json", kept.model_dump_json())


def _run(store: Store, run_id: str, state: str, nodes: dict[str, NodeState], **more: object) -> Run:
    same = {
        "component": "c",
        "code_id": "v1",
        "what": {},
        "config": {},
        "sources": {},
        "inputs": {},
        "redo": "",
        "promote": "",
        "done": False,
    }
    listed = [{"name": name, "stage": one.stage, "key": one.key or "9" * 64, **same} for name, one in nodes.items()]
    spec = {
        "pipeline": "world_model",
        "profile": "smoke",
        "nodes": listed,
        "created_at": _moment(float(str(more.get("started", BEGAN)))),
    }
    run = store.runs.create(spec, run_id)
    whole = {"started": BEGAN, "updated": BEGAN, "host": "here", "pid": 1, **more}
    told = RunState.model_validate(
        {"run_id": run.id, "pipeline": "world_model", "profile": "smoke", "state": state, **whole}
    )
    told.nodes = nodes
    run.write("state.json", told.model_dump_json())
    return run
