"""The images: what their text promises. That it holds when they are built and run, ``make containers`` shows."""

import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipelines.lock import digest
from pipelines.stages import TABLE

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
ROLES: dict[str, Any] = tomllib.loads((IMAGES / "roles.toml").read_text())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(path: Path = IMAGES / "Containerfile") -> list[tuple[str, str]]:
    """(INSTRUCTION, its arguments), continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (one.partition(" ") for one in "\n".join(lines).replace("\\\n", " ").splitlines())
    ]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each build stage; the last one is the image."""
    found: list[list[tuple[str, str]]] = [[]]
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found[1:]


def test_there_is_a_role_for_each_image_of_the_stage_table_and_no_other() -> None:
    assert ROLES.keys() == {row.image for row in TABLE} == {"curation", "training", "control"}


def test_the_user_of_an_image_cannot_rewrite_its_code(tmp_path: Path) -> None:
    image, code = stages()[-1], next(stage for stage in stages() if stage[0][1].endswith(" AS code"))
    users = [place for place, (word, _) in enumerate(image) if word == "USER"]
    assert [image[place][1] for place in users] == ["1000"]  # root until then
    assert max(place for place, (word, _) in enumerate(image) if word in ("RUN", "COPY", "ADD")) < users[0]
    assert not [
        rest
        for _, rest in instructions()
        if re.search(r"chown|--chmod|chmod\s+(\S*\s+)*\S*(\+\S*w|[0-7]*[2367]\b)", rest)
    ]
    assert ("COPY", "--from=code /opt/wfm /opt/wfm") in image
    word, closing = code[-1]
    assert word == "RUN"
    command = closing.split("&&")[-1].replace("/opt/wfm", str(tmp_path / "opt/wfm"))
    assert "chmod" in command, "after all that is put there"
    # the command does what it is there for
    package = tmp_path / "opt" / "wfm" / "pipelines"
    package.mkdir(parents=True)
    (package / "cli.py").write_text("")
    (package / "cli.py").chmod(0o666)
    package.chmod(0o777)
    subprocess.run(command, shell=True, check=True)
    modes = {each.name: each.stat().st_mode & 0o777 for each in (package.parent, package, package / "cli.py")}
    package.parent.chmod(0o755)
    package.chmod(0o755)
    assert modes == {"wfm": 0o555, "pipelines": 0o555, "cli.py": 0o444}


def test_an_image_starts_outside_its_code_and_imports_nothing_from_where_it_stands() -> None:
    image = stages()[-1]
    environment = " ".join(rest for word, rest in image if word == "ENV").split()
    assert {"PYTHONSAFEPATH=1", "PYTHONNOUSERSITE=1"} <= set(environment)
    assert [rest for word, rest in image if word == "WORKDIR"][-1] == "/home/wfm"
    assert image[-1] == ("ENTRYPOINT", '["tini", "--", "python", "-m"]'), "process 1 reaps, and passes signals on"
    assert "components.image" in next(rest for word, rest in image if word == "HEALTHCHECK")


def test_what_changes_often_lies_above_what_weighs() -> None:
    image = stages()[-1]
    place = {rest.split()[-1] if word == "RUN" else rest: at for at, (word, rest) in enumerate(image)}
    order = ["shared", '"${EXTRAS}"', '"${MORE_EXTRAS}"', "--from=code /opt/wfm /opt/wfm"]
    assert [place[name] for name in order] == sorted(place[name] for name in order)
    role = next(at for at, (word, rest) in enumerate(image) if (word, rest) == ("ARG", "ROLE"))
    assert role > place["--from=code /opt/wfm /opt/wfm"], "an argument that tells roles apart parts all layers above it"


def test_no_cache_of_a_package_manager_is_left_behind() -> None:
    for word, rest in stages()[-1]:
        if word == "RUN" and "apt-get" in rest:
            assert "rm -rf /var/lib/apt/lists/*" in rest
            assert "--no-install-recommends" in rest
    assert "PIP_NO_CACHE_DIR=1" in " ".join(rest for word, rest in stages()[-1] if word == "ENV")


def test_the_layers_of_a_role_are_its_extras_each_requirement_once() -> None:
    install = runpy.run_path(str(IMAGES / "install.py"))
    common = install["shared"](PROJECT, ROLES)
    assert set(PROJECT["dependencies"]) < set(common)
    assert any(line.startswith("s3fs") for line in common)
    assert not any(line.startswith("torch") for line in common), "curation needs none"
    for role in ROLES.values():
        own = install["requirements"](PROJECT, [*role["extras"], *role["more"]])
        wanted = {*common, *own}
        assert {line for extra in role["extras"] for line in PROJECT["optional-dependencies"][extra]} <= wanted
        assert any(line.startswith("dask") for line in wanted), "daskjobs of its image need workers"
    with pytest.raises(SystemExit, match=r"unknown extra curat\. Choices: curate"):
        install["requirements"](PROJECT, ["curat"])


def build(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """What build.py would call."""
    return subprocess.run(
        [sys.executable, str(IMAGES / "build.py"), *words, "--tag", "x", "--builder", "echo"],
        capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def test_the_builder_is_told_what_the_role_and_the_code_say() -> None:
    told = build(
        "control", "--base", "some/cuda", "--more", "gpu", PIP_INDEX_URL="https://packages.example/simple"
    ).stdout
    assert f"CODE={digest()}" in told
    for word in ("EXTRAS=train,dask", "MORE_EXTRAS=k8s,plan,gpu", "BASE_IMAGE=some/cuda", "BUILD_IMAGE=some/cuda"):
        assert f"--build-arg {word}" in told
    assert "COMPILED=flash-attn>=2.8" in told, "PyPI has its sources alone"
    assert "PIP_INDEX_URL=https://packages.example/simple" in told
    assert "COMPILED= " in build("training").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("trainig",), "unknown role 'trainig'. Choices: curation, training, control"),
        (("training", "--more", "gpus"), "unknown extra gpus. Choices: curate"),
    ],
)
def test_a_wrong_build_is_refused_with_the_choices(words: tuple[str, ...], says: str) -> None:
    done = build(*words)
    assert done.returncode != 0
    assert says in done.stderr


def test_no_password_gets_into_the_history_of_an_image() -> None:
    for name, value in (
        ("PIP_INDEX_URL", "https://user:secret@packages.example/simple"),
        ("PIP_EXTRA_INDEX_URL", "https://a.example/simple https://secret@packages.example/simple"),
    ):
        done = build("training", **{name: value})
        assert done.returncode != 0
        assert f"{name} holds a user or a password" in done.stderr
        assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("there", "done"), [("ubuntu:x:1000:1000::/home/ubuntu:/bin/sh", ["--remove ubuntu"]), ("", [])]
)
def test_a_base_that_has_a_user_1000_gives_it_up(tmp_path: Path, there: str, done: list[str]) -> None:
    """As Ubuntu's do; `useradd` refuses an id that is taken."""
    text = next(rest for word, rest in stages()[-1] if word == "RUN" and "useradd" in rest)
    command = text[text.index("other=") :]
    for name, body in {
        "getent": f'[ "$*" = "passwd 1000" ] && [ -n "{there}" ] && echo "{there}" || exit 2',
        "userdel": f'echo "$@" >> {tmp_path}/removed',
        "useradd": f'echo "$@" >> {tmp_path}/added',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    subprocess.run(["sh", "-ec", command], check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    removed = tmp_path / "removed"
    assert (removed.read_text().splitlines() if removed.exists() else []) == done
    assert (tmp_path / "added").read_text() == "--uid 1000 --create-home wfm\n"


def test_what_is_compiled_is_compiled_for_the_torch_that_is_installed() -> None:
    compiled = set(re.findall(r"torch==[\d.]+", (IMAGES / "Containerfile").read_text()))
    assert compiled == {line for line in PROJECT["optional-dependencies"]["train"] if line.startswith("torch=")}


def test_the_control_image_brings_what_a_planner_imports() -> None:
    """The plan step reads the configs of all stages in that image. What none of its extras names is taken away here."""
    mine = {*ROLES["control"]["extras"], *ROLES["control"]["more"]}
    assert planned(mine) == ""
    assert "array_api_compat" in planned(mine - {"plan"}), "the control image as it was"


def planned(extras: set[str]) -> str:
    """What a planner with these extras of wfm dies of; empty: nothing."""
    program = """
import importlib.metadata as metadata, json, re, sys
def closure(name, extras, found):
    if (name, extras) in found:
        return
    found.add((name, extras))
    try:
        needs = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    from packaging.requirements import Requirement
    for one in map(Requirement, needs):
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras or ("",)):
            closure(re.sub("[-_.]+", "-", one.name).lower(), tuple(sorted(one.extras)), found)
found = set()
closure("wfm", tuple(json.loads(sys.argv[1])) or ("",), found)
there = {name for name, _ in found} | {"packaging", "setuptools", "pip"}
modules = metadata.packages_distributions()
absent = {m for m, of in modules.items() if not any(re.sub("[-_.]+", "-", d).lower() in there for d in of)}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
from pipelines.nodes import config_class
from pipelines.stages import STAGES
sys.meta_path.insert(0, Absent())
for stage in STAGES:
    config_class(stage)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(sorted(extras))], cwd=ROOT, capture_output=True, text=True
    )
    return done.stderr if done.returncode else ""


def unpinned(told: list[tuple[str, str]], pins: set[str]) -> list[str]:
    """What pip is told to install by name while an image is built, and nothing says which version of."""
    found = []
    for _, rest in told:
        for command in re.findall(r"pip install ([^&|;}]*)", rest):
            bound = "-c constraints.txt -c build-tools.txt" in command
            if "--no-deps" not in command:
                names = re.sub(r"-c \S+|--\S+|==\S+", "", command).split()
                found += [name for name in names if not bound or name.lower().replace("_", "-") not in pins]
    return found


def pinned(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;=*]+", line) for line in lines), "exact versions alone"
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_what_builds_an_image_is_pinned_with_all_that_it_needs() -> None:
    tools, rest = pinned(IMAGES / "build-tools.txt"), pinned(ROOT / "constraints.txt")
    assert not tools.keys() & rest.keys(), "one place for each"
    assert unpinned(instructions(), {*tools, *rest}) == []
    for more in (
        "venv/bin/pip install --quiet wheel",
        "venv/bin/pip install -c constraints.txt -c build-tools.txt nobody",
    ):
        assert unpinned([*instructions(), ("RUN", more)], {*tools, *rest})
    copied = [word for stage in stages() for name, words in stage if name == "COPY" for word in words.split()]
    assert {"constraints.txt", "images/build-tools.txt"} <= set(copied)
