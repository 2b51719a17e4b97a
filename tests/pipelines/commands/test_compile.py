"""``wfm compile`` as people use it: what is wrong is said before anything is written."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.commands.cli import app
from tests.pipelines.engines.argo.compiled import SETTINGS
from wfm.errors import ConfigError, InputError, WfmError


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(SETTINGS.resolved()))
    return path


def ask(cluster: Path, out: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["compile", *words, "--cluster", str(cluster), "-o", str(out)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_options_and_needs_are_those_of_the_other_commands(cluster: Path, tmp_path: Path) -> None:
    sets = ("--set", "select_clips.resources.memory_gib=48", "--set", "split_clips.cut.uncommon=encode")
    said = ask(
        cluster, tmp_path / "a", "curate", "--engine", "argo", "--profile", "smoke", "--store", "s3://b/store", *sets
    )
    assert "workflowtemplate.yaml" in said
    template = yaml.safe_load((tmp_path / "a" / "workflowtemplate.yaml").read_text())
    given = {one["name"]: one["value"] for one in template["spec"]["arguments"]["parameters"]}
    assert given["store"] == "s3://b/store"
    assert json.loads(given["overrides"]) == [sets[1], sets[3]]
    (pod,) = [one for one in template["spec"]["templates"] if one["name"].startswith("select-clips")]
    assert pod["container"]["resources"]["limits"]["memory"] == "49Gi", "with /dev/shm"


def test_a_file_is_no_folder_to_write_to(cluster: Path) -> None:
    with pytest.raises(InputError, match=r"--out '.*cluster.json' is a file: give a folder"):
        ask(cluster, cluster, "curate", "--engine", "argo")


def test_what_only_this_machine_sees_is_said(cluster: Path, tmp_path: Path) -> None:
    said = ask(
        cluster,
        tmp_path / "a",
        "curate",
        "--engine",
        "argo",
        "--store",
        str(tmp_path / "s"),
        "--videos",
        "file:///films",
    )
    assert f"--store {tmp_path / 's'} is on this machine" in " ".join(said.split())
    assert "--videos file:///films is on this machine" in " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("curate", "--engine", "airflow"), InputError, "unknown engine 'airflow'. Choices: argo"),
        (("curates", "--engine", "argo"), ConfigError, "unknown pipeline 'curates'"),
        (("curate", "--engine", "argo", "--set", "select_clip.x=1"), ConfigError, "select_clip"),
        (("curate", "--engine", "argo", "--template", "My_Flow"), ConfigError, "--template of a-z"),
        (
            ("curate", "--engine", "argo", "--videos", "s3://canary:hunter2@films/raw"),
            ConfigError,
            "--videos: the address",
        ),
        (("curate", "--engine", "argo", "--store", "s3://canary:hunter2@b/s"), ConfigError, "--store: the address"),
        (
            ("curate", "--engine", "argo", "--set", "ingest_videos.videos=https://x/a.mp4?sig=hunter2"),
            ConfigError,
            "--set: the address",
        ),
        (
            ("curate", "--engine", "argo", "--videos", "s3://films/{{workflow.name}}"),
            ConfigError,
            "--videos: 's3://films/{{",
        ),
        (("curate", "--engine", "kubeflow", "--store", "s3://b/{{$.json}}"), ConfigError, "--store: 's3://b/{{$"),
        (("curate", "--engine", "argo", "--cron", "0 3 * *"), ConfigError, "five fields"),
        (("curate", "--engine", "argo", "--notice-secret", "chat"), ConfigError, "by its digest"),
        (("curate", "--engine", "argo", "--zone", "Europe/Berlin"), InputError, "give --cron"),
        (("curate", "--engine", "argo", "--stop-after-failures", "3"), InputError, "give --cron"),
        (
            ("curate", "--engine", "kubeflow", "--notice", f"curl@sha256:{'0' * 64}", "--notice-secret", "chat"),
            ConfigError,
            "--notice curl@sha256",
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    cluster: Path, tmp_path: Path, words: tuple[str, ...], error: type[WfmError], says: str
) -> None:
    with pytest.raises(error) as told:
        ask(cluster, tmp_path / "out", *words)
    assert says in str(told.value)
    assert "hunter2" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_settings_with_a_place_to_fill_in_are_refused(cluster: Path, tmp_path: Path) -> None:
    settings = json.loads(cluster.read_text())
    settings["environment"]["WFM_NOTE"] = "{{workflow.uid}}"
    cluster.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"environment\.WFM_NOTE of the cluster's settings"):
        ask(cluster, tmp_path / "out", "curate", "--engine", "argo", "--profile", "smoke")
    assert not (tmp_path / "out").exists()


def test_a_file_of_an_earlier_time_is_told_of(cluster: Path, tmp_path: Path) -> None:
    """A schedule that was taken out would go on when the folder is applied."""
    words = ("curate", "--engine", "argo", "--profile", "smoke")
    assert "none of these" not in ask(cluster, tmp_path / "a", *words, "--cron", "0 3 * * *")
    said = ask(cluster, tmp_path / "a", *words)
    assert "cronworkflow.yaml is none of these files" in said
    assert (tmp_path / "a" / "cronworkflow.yaml").exists(), "it is not ours to delete"
