"""The command lines of the objects are run, or read by the program they start: a wrong option would show on a cluster only."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import strict
from tests.wfm.cluster.requests import request, settings
from wfm.cluster.objects import build
from wfm.parts.workers import map_tasks

ROOT = Path(__file__).parents[4]
PARTS = {"00": 2, "01": 3}


def double(number: int) -> int:
    return 2 * number


def containers(made: Any) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for _, pod in strict.pods(made) for one in pod["spec"]["containers"]}


def environment(container: dict[str, Any], folder: Path, **more: str) -> dict[str, str]:
    """That of the container, with its folders below another."""
    given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    moved = {name: re.sub(r"^(/tmp|/cache|/home/wfm)", str(folder), value) for name, value in given.items()}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT), **moved, **more}


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[bytes]"]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in reversed(processes):  # the worker before the scheduler
        process.terminate()
        process.wait(60)


def _as_the_image_starts(words: list[str]) -> list[str]:
    """What follows tini, which is in the images only."""
    assert words[:2] == ["tini", "--"]
    return words[2:]


def test_scheduler_and_worker_of_a_daskjob_start_and_work(
    tmp_path: Path, started: list["subprocess.Popen[bytes]"]
) -> None:
    """As their pods would start them, with the address that the operator gives; only ports and folders are others."""
    found = containers(build(request("embed_clips"), settings()))
    said = tmp_path / "scheduler.json"
    ports = ["--port", "0", "--dashboard-address", "127.0.0.1:0", "--host", "127.0.0.1", "--scheduler-file", str(said)]
    words = _as_the_image_starts(found["scheduler"]["command"])
    assert words[:2] == ["dask", "scheduler"]
    taken = {"--port", "--dashboard-address"}
    rest = [
        word for before, word in zip(["", *words], words, strict=False) if word not in taken and before not in taken
    ]
    started.append(subprocess.Popen([*rest, *ports], env=environment(found["scheduler"], tmp_path)))
    until = time.monotonic() + 60
    while not said.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    (address,) = re.findall(r'"address": "([^"]+)"', said.read_text())
    operators = {"DASK_WORKER_NAME": "a-worker", "DASK_SCHEDULER_ADDRESS": address}
    worker = [
        word.replace("$(DASK_WORKER_NAME)", operators["DASK_WORKER_NAME"])
        for word in _as_the_image_starts(found["worker"]["command"])
    ]
    worker[worker.index("--local-directory") + 1] = str(tmp_path / "dask")
    started.append(subprocess.Popen(worker, env=environment(found["worker"], tmp_path, **operators)))
    assert dict(map_tasks(double, PARTS, scheduler=address)) == {"00": 4, "01": 6}
    assert list((tmp_path / "dask").iterdir()), "it works where it was told to"


OPERATORS: dict[str, dict[str, str]] = {
    # what the training operator sets for a worker (pkg/controller.v1/pytorch/elastic.go), and the trainer
    # (pkg/runtime/framework/plugins/torch/torch.go)
    "pytorchjob": {"PET_RDZV_ENDPOINT": "job-worker-0:23456", "PET_RDZV_BACKEND": "c10d", "PET_NNODES": "4:4"},
    "trainjob": {
        "PET_MASTER_ADDR": "job-node-0-0.job",
        "PET_MASTER_PORT": "29500",
        "PET_NODE_RANK": "3",
        "PET_NNODES": "4",
    },
}
READ = """
import json, os, sys
from torch.distributed.run import config_from_args, parse_args
kept, answers = dict(os.environ), {}
for kind, (variables, words) in json.load(sys.stdin).items():
    os.environ.clear()
    os.environ.update({**kept, **variables})
    config, program, rest = config_from_args(parse_args(words))
    answers[kind] = {**vars(config), "program": [program, *rest]}
print(json.dumps(answers, default=str))
"""


def test_torchrun_understands_what_a_training_is_started_with() -> None:
    asked, given = request(resources={"gpu": 8, "replicas": 4}), {}
    for kind, theirs in OPERATORS.items():
        made = build(asked, settings(training_job=kind))
        spec = made["spec"]
        if kind == "pytorchjob":
            words, elastic = _as_the_image_starts(containers(made)["pytorch"]["command"]), spec["elasticPolicy"]
            told = {
                "PET_NPROC_PER_NODE": spec["nprocPerNode"],
                "PET_RDZV_ID": elastic["rdzvId"],
                "PET_MAX_RESTARTS": str(elastic["maxRestarts"]),
                "PET_RDZV_CONF": ",".join(f"{one['key']}={one['value']}" for one in elastic["rdzvConf"]),
            }
        else:
            words = [*_as_the_image_starts(spec["trainer"]["command"]), *spec["trainer"]["args"]]
            told = {"PET_NPROC_PER_NODE": str(spec["trainer"]["numProcPerNode"])}
        assert words[:3] == ["python", "-m", "torch.distributed.run"]
        given[kind] = ({**theirs, **told}, words[3:])
    done = subprocess.run(
        [sys.executable, "-c", READ], input=json.dumps(given), env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = json.loads(done.stdout)
    for kind, found in answers.items():
        assert (found["min_nodes"], found["max_nodes"], found["nproc_per_node"]) == (4, 4, 8)
        assert (found["run_id"], found["max_restarts"]) == (asked.name(settings(training_job=kind)), 0)
        after = found["program"][found["program"].index("-m") + 1 :]
        assert after[:3] == ["components.train_world_model", "--spec", asked.spec_url]
        assert after[-2:] == ["--key-out", "/tmp/key"]
    workers, nodes = answers["pytorchjob"], answers["trainjob"]
    assert (workers["rdzv_backend"], workers["rdzv_endpoint"]) == ("c10d", "job-worker-0:23456")
    assert (workers["rdzv_configs"]["join_timeout"], workers["rdzv_configs"]["read_timeout"]) == ("900", "900")
    assert (nodes["rdzv_backend"], nodes["rdzv_endpoint"]) == ("static", "job-node-0-0.job:29500")
    assert (nodes["rdzv_configs"]["timeout"], nodes["rdzv_configs"]["rank"]) == ("900", 3)
