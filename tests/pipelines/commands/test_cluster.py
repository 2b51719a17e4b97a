"""``wfm cluster`` as people use it: a plan as a script of launches; files in, faults out, and what is no file of objects."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.derivation import ROOT
from pipelines.commands.cli import app
from pipelines.commands.cluster import script
from pipelines.engines.compile import Step
from tests.wfm.cluster.lint import good
from wfm.artifacts import Store
from wfm.cluster.resources import Resources
from wfm.errors import ConfigError, DataError, InputError


def ask(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["cluster", "lint", *map(str, arguments)], env={"WFM_CLUSTER": ""})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(good.SETTINGS.resolved()))
    return path


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_good_objects_of_several_files(tmp_path, cluster, suffix):
    files = []
    for name in ("queue", "workflow", "cron"):
        objects = json.loads(json.dumps(good.SETS[name]()))
        files.append(tmp_path / f"{name}.{suffix}")
        text = (
            yaml.safe_dump_all(objects)
            if suffix == "yaml"
            else json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        )
        files[-1].write_text(text)
    code, text = ask(*files, "--cluster", cluster)
    assert code == 0
    assert "no fault" in text
    assert ask(*files)[0] == 0, "and without settings"
    cluster.rename(tmp_path.with_suffix(".json"))
    assert ask(tmp_path) == ask(*sorted(files)), "and as a folder"


def test_faults_are_a_table_and_an_exit_code(tmp_path, cluster):
    job = json.loads(json.dumps(good.training()))
    job["spec"]["runPolicy"]["cleanPodPolicy"] = "None"
    job["metadata"]["annotations"]["note"] = "2026-11-30"
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job).replace("'2026-11-30'", "2026-11-30"))
    code, text = ask(file, "--cluster", cluster)
    assert code == 78
    assert "clean-pods" in text
    assert "1 faults in 1 objects" in text
    assert "Running" in text


def test_against_another_cluster(tmp_path):
    file, cluster = tmp_path / "job.yaml", tmp_path / "cluster.json"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(good.training()))))
    cluster.write_text(json.dumps({"namespace": "other"}))
    code, text = ask(file, "--cluster", cluster)
    assert code == 78
    assert "namespace" in text
    cluster.write_text("{")
    with pytest.raises(ConfigError, match="settings of the cluster"):
        ask(file, "--cluster", cluster)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: [", "no YAML"),
        ("!!python/object/apply:os.system ['true']", "no YAML"),
        ("a: &a [x]\nb: *a", "alias"),
        ("[" * 2000 + "]" * 2000, "nested"),
        ("---\n".join(["a: 1\n"] * 2001), "at most"),
        ("x: " + "y" * 2**22, "bytes"),
        ("a: \x00", "no YAML"),
        ("a: 0b", "no object"),
    ],
)
def test_what_is_no_file_of_objects(tmp_path, text, says):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    if says == "no object":
        assert ask(file) == (78, ask(file)[1])
        assert "object" in ask(file)[1]
        return
    with pytest.raises(DataError, match=says) as told:
        ask(file)
    assert str(file) in str(told.value)


def test_no_file_and_an_empty_one(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        ask(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("---\n")
    with pytest.raises(InputError, match="no object"):
        ask(tmp_path / "empty.yaml")


def test_names_of_others_command_no_terminal(tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "[red]Pod", "metadata": {"name": "\x1b[31m[bold]x"}}))
    code, text = ask(file)
    assert code == 78
    assert "\x1b" not in text
    assert "[red]Pod" in text


@pytest.fixture
def planned(tmp_path: Path, cluster: Path) -> tuple[list[str], Path]:
    """(the script of a run, where its store is)."""
    words = ["cluster", "steps", "world_model", "--profile", "smoke", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, words, env={"WFM_CLUSTER": str(cluster)})
    assert done.exit_code == 0, done.output
    assert "where no pod sees it" in done.stderr
    return done.stdout.splitlines(), tmp_path / "store"


def test_steps_are_a_script_that_launches_every_stage_and_hands_keys_on(planned, cluster, tmp_path):
    lines, place = planned
    launches = [shlex.split(line) for line in lines if "components.launch_job" in line]
    store = Store.open(place)
    (run,) = store.runs.list()
    assert lines[0] == f"# run {run.id}"
    nodes = [one["name"] for one in run.spec()["nodes"]]
    assert [words[-1] for words in launches] == [f"$keys/{node}" for node in nodes]
    for at, words in enumerate(launches):
        needed = {word.partition("$keys/")[2].strip(')"') for word in words if "=$(cat" in word}
        assert needed <= set(nodes[:at]), "each after what it needs"
    # the shell starts them so, and what a launcher would make is of the plan's keys
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@" --dry-run --cluster {cluster}\n')
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    text = "\n".join(line for line in lines if "launch_job" not in line or "simulate_videos.json" in line)
    done = subprocess.run(["sh", "-c", text], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout)["items"]
    assert made["metadata"]["annotations"]["wfm.dev/key"] == run.spec()["nodes"][0]["key"]
    assert made["metadata"]["namespace"] == good.SETTINGS.namespace


def test_steps_take_the_keys_of_what_is_there():
    step = Step(
        "b", "select_clips", "components.select_clips", "s3://bucket/a b.json", {"x": "there", "y": "a"}, {}, "", "curation",
        "container", Resources(), 1, 60.0,
    )  # fmt: skip
    *_, line = script([step], {"there": "1" * 64})
    words = f'--spec \'s3://bucket/a b.json\' --input x={"1" * 64} --input y="$(cat "$keys"/a)" --key-out "$keys"/b'
    assert line == f"python -m components.launch_job {words}"


def test_steps_want_a_cluster_that_is_described(tmp_path):
    words = ["cluster", "steps", "curate", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, words, env={"WFM_CLUSTER": ""})
    assert isinstance(done.exception, ConfigError)
    assert "set WFM_CLUSTER to a JSON file" in str(done.exception)
    assert not (tmp_path / "store").exists()


def test_captioning_is_asked_by_an_address_that_runs_can_have(tmp_path):
    """No run would have any other, and the service would never be raised."""
    for url in ("captioning:8000/v1", "http://", "grpc://captioning/v1"):
        done = CliRunner().invoke(app, ["cluster", "captioning", "--url", url, "--store", str(tmp_path / "store")])
        assert isinstance(done.exception, InputError)
        assert repr(url) in str(done.exception)
        assert "http://HOST:PORT/v1" in str(done.exception)
