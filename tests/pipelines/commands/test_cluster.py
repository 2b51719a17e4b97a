"""``wfm cluster lint`` as people use it: files in, faults out, and files that are not what they say."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.commands.cli import app
from tests.wfm.cluster.lint import good
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
