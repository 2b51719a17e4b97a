"""A compiled workflow as it would run: its very commands as processes of this machine, over a store."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.engines.argo.compiled import SETTINGS, Json, end_of, flow, only, run_here, template_of
from tests.pipelines.engines.argo.interpreter import End, Workflow, again
from wfm.artifacts import Store

Film = Callable[..., Path]


def write_settings(folder: Path) -> None:
    (folder / "cluster.json").write_text(json.dumps(SETTINGS.resolved()))


def stage_container(launcher: Json, folder: Path) -> Json:
    """The container of the pod that a launcher would make: its job as `--dry-run` shows it. Of a DaskJob its runner."""
    done = run_here({"command": [*launcher["command"], "--dry-run"]}, folder)
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)["items"][0]["spec"]
    pod = spec["job"]["spec"] if "job" in spec else spec["template"]["spec"]
    container: Json = pod["containers"][0]
    return container


class Pods:
    """Starts what a workflow makes: pods as processes, launchers' jobs likewise."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys, self.log = folder, {}, ""
        write_settings(folder)

    def __call__(self, template: Json, container: Json) -> End:
        launched = "components.launch_job" in container["command"]
        made = stage_container(container, self.folder) if launched else container
        done = run_here(made, self.folder)
        self.log += done.stderr
        key = self.folder / "key"
        if key.exists():
            self.keys[template["metadata"]["labels"]["wfm.dev/node"]] = key.read_text()
            key.unlink()
        return end_of(done)


def run(compiled: Json, name: str, store: Store, folder: Path, **given: str) -> tuple[Workflow, Pods, str]:
    folder.mkdir(exist_ok=True)
    pods = Pods(folder)
    workflow = Workflow(compiled, name, pods, folder, {"store": store.url, **given})
    return workflow, pods, workflow.run()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def test_ingest_takes_what_the_plan_step_saw_and_later_files_belong_to_the_next_run(
    film: Film, store: Store, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    film(videos / "a.mp4", 1, frames=8)
    compiled = template_of(flow("curate", "smoke", videos=str(videos)))
    begun = only(compiled)
    begun["spec"]["templates"][0]["dag"]["tasks"] = begun["spec"]["templates"][0]["dag"]["tasks"][:1]
    _, pods, phase = run(begun, "nightly-1", store, tmp_path / "pod")
    assert phase == "Succeeded", pods.log
    (ingest,) = [path for path in (tmp_path / "pod" / "plan").iterdir() if path.name.startswith("key-ingest-videos")]
    planned = ingest.read_text()
    film(videos / "b.mp4", 2, frames=8)
    # the plan step is tried again (its node was lost), and says the same; then the ingest runs
    _, pods, phase = run(only(compiled, "ingest-videos"), "nightly-1", store, tmp_path / "pod")
    assert phase == "Succeeded", pods.log
    assert pods.keys == {"ingest_videos": planned}
    assert store.artifact(planned).manifest.counts["inputs"] == 1, "what came later is not in it"
    _, pods, phase = run(only(compiled, "ingest-videos"), "nightly-2", store, tmp_path / "pod")
    assert phase == "Succeeded", pods.log
    assert store.artifact(pods.keys["ingest_videos"]).manifest.counts["inputs"] == 2


def test_a_stage_of_a_cancelled_run_is_not_tried_again(store: Store, tmp_path: Path) -> None:
    compiled = template_of(flow("world_model", "smoke"))
    begun = only(compiled)
    begun["spec"]["templates"][0]["dag"]["tasks"] = begun["spec"]["templates"][0]["dag"]["tasks"][:1]
    _, pods, phase = run(begun, "first", store, tmp_path / "pod")
    assert phase == "Succeeded", pods.log
    store.runs.of("first").request_cancel("somebody")
    (stage,) = [one for one in compiled["spec"]["templates"] if one["name"].startswith("select-clips")]
    specs = (tmp_path / "pod" / "plan" / "specs").read_text()
    words = ["tini", "--", "python", "-m", "components.simulate_videos", "--spec", f"{specs}/simulate_videos.json"]
    container = {
        **stage["container"],
        "command": [*words, "--key-out", "/tmp/key"],
    }  # a stage that has no inputs to miss
    done = run_here(container, tmp_path / "pod")
    assert done.returncode == 78, done.stderr
    assert not again(stage["retryStrategy"], 0, end_of(done))
    (tried,) = store.runs.of("first").read_outcomes("simulate_videos")
    assert (tried.outcome or {})["outcome"] == "cancelled"
    assert run_here({**container, "env": []}, tmp_path / "pod").returncode == 143, "to engines that do not ask for it"


@pytest.mark.long
def test_a_pipeline_gets_the_keys_that_it_gets_here_and_then_starts_one_pod(
    film: Film, store: Store, tmp_path: Path, wfm: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Its very commands, as compiled; of launchers the pods that their jobs would have."""
    (tmp_path / "videos").mkdir()
    for seed in range(2):
        film(tmp_path / "videos" / f"{seed}.mp4", seed)
    videos = str(tmp_path / "videos")
    wfm("run", "curate", "--profile", "smoke", "--videos", videos, "--engine", "local", store=tmp_path / "here")
    here = Store.open(tmp_path / "here")
    (done,) = here.runs.list()
    made = {record.node: str((record.outcome or {}).get("key")) for record in done.read_outcomes()}
    compiled = template_of(flow("curate", "smoke", videos=videos))
    workflow, pods, phase = run(compiled, "first", store, tmp_path / "pod")
    assert phase == "Succeeded", pods.log
    assert pods.keys == made
    assert store.resolve("dataset/curated-smoke") == here.resolve("dataset/curated")
    workflow, pods, phase = run(compiled, "second", store, tmp_path / "pod")
    assert (phase, workflow.pods, pods.keys) == ("Succeeded", ["plan"], {})


def test_a_fully_cached_run_is_one_pod_without_a_device_or_a_queue() -> None:
    """By the graph alone: whatever the plan step says is there starts nothing, and what follows goes on."""
    one = flow()
    compiled = template_of(one)
    made: list[Json] = []
    said: dict[str, str] = {}

    def start(template: Json, container: Json) -> End:
        made.append(template)
        return End()

    for missing, pods in ((set(), 1), ({"write_report"}, 2), ({task.node for task in one.tasks}, 1 + len(one.tasks))):
        said = {"specs": "s3://bucket/store/runs/a/specs"}
        said |= {f"make-{task.name}": str(task.node in missing).lower() for task in one.tasks}
        said |= {f"key-{task.name}": "0" * 64 for task in one.tasks}
        made.clear()
        workflow = Workflow(compiled, "a", start, Path(), {"store": "s3://bucket/store"}, said=said)
        assert workflow.run() == "Succeeded"
        assert len(workflow.pods) == pods
        for template in made:
            resources = template["container"]["resources"]
            assert not any("/" in name for name in {**resources["requests"], **resources["limits"]}), "no device"
            assert not any("kueue" in name for name in template["metadata"]["labels"]), "and no place in a queue"
        launchers = [one for one in made if "components.launch_job" in one["container"]["command"]]
        assert bool(launchers) == (len(missing) > 1), "so no job, and no Workload either"


def test_a_branch_that_fails_leaves_the_others_alone() -> None:
    one = flow()

    def start(template: Json, container: Json) -> End:
        return End("Failed", 78) if "train-tokenizer-discrete" in template["name"] else End()

    said = {"specs": "x", **{f"make-{task.name}": "true" for task in one.tasks}}
    said |= {f"key-{task.name}": "0" * 64 for task in one.tasks}
    workflow = Workflow(template_of(one), "a", start, Path(), {"store": "s"}, said=said)
    assert workflow.run() == "Failed"
    phases = {task.node: workflow.phases[task.name] for task in one.tasks}
    assert phases["train_tokenizer_discrete"] == "Failed"
    assert phases["train_autoregressive"] == phases["write_report"] == "Omitted"
    assert phases["publish_diffusion"] == "Succeeded"
    assert sum("train-tokenizer-discrete" in name for name in workflow.pods) == 1, "wrong input is not tried again"
