"""The walk through is true as far as no cluster is needed: commands are taken, files are there, its overlay is whole."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.commands.cli import app
from tests.cluster import strict
from tests.contracts.documents import wrong
from tests.manifests.overlays import MANIFESTS, kubectl
from wfm.cluster.lint import lint
from wfm.cluster.settings import ClusterSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "walkthrough.md").read_text()
LINES = [line.strip() for line in re.findall(r"^ {4}(.*)$", TEXT, re.MULTILINE)]
ASKED = [re.split(r"\s{2,}#|\s>\s", line)[0] for line in LINES if line.startswith("wfm ")]
FILES = dict(re.findall(r"^    cat > (\S+) <<'END'\n(.*?)^    END$", TEXT, re.MULTILINE | re.DOTALL))
MINE = "mine"
DIGEST = "sha256:" + "d" * 64


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The overlay as the guide has it written, with digests put in by its own commands."""
    root = tmp_path_factory.mktemp("walk")
    shutil.copytree(MANIFESTS, root / "manifests")
    (root / MINE).mkdir()
    for name, text in FILES.items():
        (root / name).write_text(re.sub("^    ", "", text, flags=re.MULTILINE))
    for role in ("curation", "training", "control"):
        (root / f"{role}.digest").write_text(DIGEST)
    (put_in,) = re.findall(r"(?:^    (?: *-e .*|sed -i .*)\n)+", TEXT, re.MULTILINE)
    subprocess.run(["sh", "-euc", put_in], cwd=root, check=True, timeout=60)
    return root / MINE


@pytest.fixture(scope="module")
def rendered(mine: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [kubectl(), "kustomize", str(mine)], check=True, capture_output=True, text=True, timeout=60, env={}
    )
    return list(yaml.safe_load_all(done.stdout))


def test_commands_are_taken() -> None:
    assert len(ASKED) >= 15
    assert {line: fault for line in ASKED if (fault := wrong(shlex.split(line)))} == {}
    assert wrong(shlex.split("wfm quota curate --profle smoke"))


def test_folders_that_are_applied_are_there() -> None:
    named = set(re.findall(r" -[kf] ((?:manifests|mine)\b\S*)", "\n".join(LINES)))
    assert {name for name in named if not (ROOT / name).exists()} == {MINE}
    assert {Path(name).parent.as_posix() for name in FILES} == {MINE}


def test_the_overlay_is_whole(mine: Path, rendered: list[dict[str, Any]]) -> None:
    settings = ClusterSettings.read(str(mine / "cluster.json"))
    assert [(one["kind"], faults) for one in rendered if (faults := strict.faults(one))] == []
    assert lint(rendered, settings) == []
    images = set(re.findall(r"image': '([^']+)'", str(rendered)))
    assert images == {settings.images.control}
    assert {settings.image(role).partition("@")[2] for role in ("curation", "training", "control")} == {DIGEST}
    made = {(one["kind"], one["metadata"]["name"]) for one in rendered}
    assert {("ServiceAccount", settings.service_account), ("NetworkPolicy", "store-here")} <= made
    (store,) = [one["data"] for one in rendered if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", "wfm-store")]
    assert store.items() <= settings.environment.items(), "the exporter looks where the stages write"
    (rule,) = [one["spec"] for one in rendered if one["metadata"]["name"] == "store-here"]
    address, port = rule["egress"][0]["to"][0]["ipBlock"]["cidr"], rule["egress"][0]["ports"][0]["port"]
    assert settings.environment["AWS_ENDPOINT_URL"] == f"http://{address.removesuffix('/32')}:{port}"


def test_every_secret_that_is_named_is_made(rendered: list[dict[str, Any]]) -> None:
    needed = {one["name"] for one in _secrets(rendered) if not one.get("optional")}
    made = set(re.findall(r"create secret generic (\S+)", TEXT))
    assert made == needed | set(json.loads(FILES[f"{MINE}/cluster.json"])["secrets"])


def _secrets(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        here = [value[name] for name in ("secretRef", "secretKeyRef") if name in value]
        return [*here, *(one for each in value.values() for one in _secrets(each))]
    return [one for each in value for one in _secrets(each)] if isinstance(value, list) else []


def test_the_steps_before_anything_is_applied_do_what_is_said(mine: Path, tmp_path: Path) -> None:
    store = ["--cluster", str(mine / "cluster.json"), "--store", str(tmp_path / "store")]

    def said(start: str, *more: str) -> str:
        (line,) = {one for one in ASKED if one.startswith(start) and "--online" not in one}
        words = [*shlex.split(line)[1:], *more]
        words = [str(tmp_path / "compiled") if word == "compiled" else word for word in words]
        words = [str(MANIFESTS / word.removeprefix("manifests/")) if "manifests/" in word else word for word in words]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return done.output

    assert "never" not in said("wfm quota world_model --profile smoke", *store)
    said("wfm compile world_model", *store)
    template = yaml.safe_load((tmp_path / "compiled" / "workflowtemplate.yaml").read_text())
    assert f"workflowtemplate/{template['metadata']['name']} " in TEXT
    assert "no fault" in said("wfm cluster lint compiled", *store[:2])


def test_versions_are_those_whose_schemas_are_held() -> None:
    origin = (ROOT / "tests" / "cluster" / "crds" / "ORIGIN.md").read_text()
    named = re.findall(r"(?:download/|ref=)v([\d.]+\d)", TEXT)
    assert len(set(named)) == 3
    assert [version for version in named if version not in origin] == []
