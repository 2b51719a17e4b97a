"""The whole smoke pipeline, stage by stage, each in a container of its role: the keys, and the bytes, of Prefect's run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from components.derivation import ROOT
from pipelines.engines.compile import Step, compile_plan
from pipelines.plan import refresh, resolve
from pipelines.request import Request
from pipelines.runs.state import read_state
from pipelines.stages import STAGES
from pipelines.start_run import create_run
from tests.containers.podman import Container, give, image
from wfm.artifacts import Store


def reference(folder: Path) -> tuple[Store, dict[str, str]]:
    """``wfm run`` with Prefect, on this machine: its store, and the nodes' keys."""
    environment = {
        **os.environ, "WFM_STORE": str(folder), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": str(ROOT),
        "WFM_HOME": str(folder.with_name("home")),
    }  # fmt: skip
    words = ["run", "world_model", "--profile", "smoke", "--engine", "prefect"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.commands.cli", *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    store = Store.open(folder)
    (run,) = store.runs.list()
    state = read_state(run)
    assert state is not None
    return store, {name: node.key for name, node in state.nodes.items()}


def start(step: Step, keys: dict[str, str], store: Store, folder: Path) -> str:
    """Run a step in its image, as a pod would; returns the key that it wrote."""
    out = folder / "out" / step.node
    give(out, Path(store.url.removeprefix("file://")))
    began = time.monotonic()
    container = Container(
        step.image,
        step.arguments({name: keys[of] for name, of in step.inputs.items()}, str(out / "key"))[1:],
        log=folder / f"{step.node}.log",
        mounts=[Path(store.url.removeprefix("file://")), out],
        memory_gib=step.memory_gib,
        environment={"POD_NAME": f"pod-{step.node}".replace("_", "-"), "WFM_ENGINE": "containers"},
    )
    code = container.run(900)
    print(f"{step.node}: image {step.image}, exit code {code}, {time.monotonic() - began:.0f} s")
    assert code == 0, container.printed()
    return (out / "key").read_text()


def test_the_smoke_pipeline_in_containers_makes_what_prefect_made(tmp_path: Path) -> None:
    there, keys = reference(tmp_path / "reference")
    store = Store.open(tmp_path / "store")
    request = Request("world_model", profile="smoke")
    plan = resolve("world_model", profile="smoke", store=store)
    run = create_run(request, plan, store)
    steps = compile_plan(plan, run, store, STAGES)
    for step in steps:  # what a planner that knows the cluster's images writes
        path = Path(step.spec.removeprefix("file://"))
        spec = json.loads(path.read_text())
        spec["image_reference"] = image(step.image)
        path.write_text(json.dumps(spec))
    made: dict[str, str] = {}
    for step in steps:
        made[step.node] = start(step, made, store, tmp_path)
    assert made == keys, "the keys of Prefect's run"
    refresh(plan, store)
    assert not plan.missing
    digests = {
        name: (store.artifact(key).manifest.digest, there.artifact(key).manifest.digest) for name, key in made.items()
    }
    exact = {name for name in digests if STAGES[plan.node(name).stage].deterministic}
    other = sorted(name for name in exact if digests[name][0] != digests[name][1])
    print(f"{len(made)} keys are equal; of {len(exact)} deterministic nodes {len(exact) - len(other)} have equal bytes")
    assert not other, f"other bytes under the same key: {other}"
    for name in made:
        (attempt,) = run.read_outcomes(name)
        assert (attempt.outcome or {}).get("outcome") == "done"
