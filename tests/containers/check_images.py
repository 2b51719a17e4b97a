"""What the images promise, of the built ones."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from components.derivation import ROOT, code_id
from pipelines.lock import digest
from pipelines.stages import STAGES
from tests.containers.make_images import ROLES, build, layers
from tests.containers.podman import LIMITS, PODMAN, USER, Container, give, image, podman
from wfm.artifacts import Store


def said(role: str, folder: Path, *words: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """(exit code, output) of a command in the image of a role."""
    (folder / "said.txt").unlink(missing_ok=True)
    code = Container(role, words, log=folder / "said.txt", options=options).run(120)
    return code, (folder / "said.txt").read_text().strip()


def python(role: str, folder: Path, text: str) -> str:
    """What a program prints there."""
    code, printed = said(role, folder, "-c", text, options=("--entrypoint", "python"))
    assert code == 0, printed
    return printed


@pytest.mark.parametrize("role", ROLES)
def test_its_user_is_nobody_and_can_write_no_code(role: str, tmp_path: Path) -> None:
    text = "import os, pathlib; print(os.getuid(), [str(p) for p in pathlib.Path('/opt').rglob('*') if os.access(p, os.W_OK)])"
    assert python(role, tmp_path, text) == f"{USER} []"
    assert podman("image", "inspect", "--format", "{{.Config.User}}", f"localhost/wfm-{role}") == str(USER)


@pytest.mark.parametrize("role", ROLES)
def test_it_says_what_it_is(role: str, tmp_path: Path) -> None:
    code, printed = said(role, tmp_path, "components.image")
    assert (code, printed) == (0, f"{image(role)}, code {digest()[:12]}")
    labels = json.loads(podman("image", "inspect", f"localhost/wfm-{role}"))[0]["Labels"]
    assert (labels["dev.wfm.role"], labels["dev.wfm.code"]) == (role, digest())
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_control_image_reads_the_config_of_every_stage(tmp_path: Path) -> None:
    """Or no plan step runs in it: once it had not the one package that curation's measures import."""
    text = (
        "from pipelines.nodes import config_class; from pipelines.stages import STAGES; "
        "print(len([config_class(one) for one in STAGES]))"
    )
    assert python("control", tmp_path, text) == str(len(STAGES))


def test_its_health_check_is_run_by_podman_and_sees_what_is_wrong(tmp_path: Path) -> None:
    name = "wfm-health"  # where there is systemd it keeps the check's time; here it is asked for
    limits = [word for word in LIMITS if word != "--no-healthcheck"]
    words = [
        "run",
        *limits,
        "--rm",
        "--network",
        "none",
        "--name",
        name,
        "--entrypoint",
        "sleep",
        "localhost/wfm-control",
    ]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen([*PODMAN, *words, "300"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while podman("ps", "--quiet", "--filter", f"name={name}") == "":
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        podman("healthcheck", "run", name)
    finally:
        podman("rm", "--force", "--time", "0", name, check=False)
        running.wait(30)
    code, printed = said("control", tmp_path, "components.image", options=("--user", "0"))
    assert code == 1
    assert "it runs as root: start it as user 1000" in printed
    code, printed = said("control", tmp_path, "components.image", options=("--env", "WFM_CACHE=/opt/none"))
    assert code == 1
    assert "WFM_CACHE is '/opt/none', which cannot be written to" in printed


@pytest.mark.parametrize("role", ROLES)
def test_its_bills_of_material_name_what_is_installed(role: str, tmp_path: Path) -> None:
    text = """
import json, importlib.metadata as m, subprocess
bills = {name: {c["name"].lower(): c.get("version") for c in json.load(open(f"/opt/sbom/{name}.cdx.json"))["components"]}
         for name in ("python", "debian")}
here = {d.name.lower(): d.version for d in m.distributions() if d.name != "wfm"}
debian = subprocess.check_output(["dpkg-query", "-W", "-f", "${Package}\\n"], text=True).split()
print(json.dumps([here, bills["python"], sorted(set(debian) - bills["debian"].keys()), len(debian)]))
"""
    here, listed, missing, count = json.loads(python(role, tmp_path, text))
    assert listed == here
    assert not missing
    print(f"{role}: {len(listed)} packages of Python, {count} of Debian")


def stage(folder: Path, **planned: Any) -> tuple[int, str]:
    """A stage whose spec says what the planner saw; (exit code, reason of its outcome)."""
    store = Store.open(folder / "store")
    run = store.runs.create({"pipeline": "image"})
    spec = {
        "schema_version": 1, "store": store.url, "run_id": run.id, "node": "ingest", "stage": "ingest_videos",
        "component": "ingest_videos", "kind": "videos", "config": {"videos": str(folder / "films")}, "redo": "",
        "promote": "", "reads_truth": False, **planned,
    }  # fmt: skip
    url = run.write("specs/ingest.json", json.dumps(spec))
    give(folder / "store", folder / "films")
    words = ["components.ingest_videos", "--spec", url]
    container = Container("curation", words, log=folder / "log", mounts=[folder / "store", folder / "films"])
    code = container.run(120)
    (ended,) = run.read_outcomes("ingest")
    assert ended.outcome is not None, container.printed()
    return code, str(ended.outcome["reason"])


def test_a_stage_refuses_another_code_or_another_image_than_the_plans(tmp_path: Path) -> None:
    code, reason = stage(tmp_path / "code", code="v0", image_reference=image("curation"))
    assert code == 78
    assert "the plan was made with code v0" in reason
    assert f"this stage runs code {code_id('ingest_videos')} (image: {image('curation')}" in reason
    other = "registry.example/wfm-curation@sha256:" + "0" * 64
    code, reason = stage(tmp_path / "image", code=code_id("ingest_videos"), image_reference=other)
    assert code == 78
    assert f"the plan names the image {other}, this stage runs in {image('curation')}" in reason
    code, reason = stage(tmp_path / "same", code=code_id("ingest_videos"), image_reference=image("curation"))
    assert "nothing else in it" in reason, "it came as far as the empty folder"


def test_a_change_of_the_code_makes_a_small_layer_again_and_no_other(tmp_path: Path) -> None:
    for name in ("wfm", "components", "pipelines", "images"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", ".containerignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    with (tmp_path / "wfm" / "curation" / "cut" / "split.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    build("training", tmp_path, tag="localhost/wfm-changed")
    try:
        before, after = layers("localhost/wfm-training"), layers("localhost/wfm-changed")
    finally:
        podman("rmi", "localhost/wfm-changed")
    changed = [
        (size, what) for (identifier, size, what), old in zip(after, before, strict=True) if identifier != old[0]
    ]
    print(f"a change of the code makes these layers again: {changed}")
    assert len(changed) == 2, "the code, and the file that names it"
    assert all(float(size.split()[0]) < 15 for size, _ in changed)
    shared = [one[0] for one in layers("localhost/wfm-control") if one[0] in {layer[0] for layer in before}]
    assert len(shared) >= len(before) - 4, "training and control share all but what is the control's own"
