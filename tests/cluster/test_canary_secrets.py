"""Secrets in the environment, in addresses and in files get into nothing that a run on a cluster leaves or shows: what its
launcher says, its records and logs, `wfm status`, `wfm logs`, what the plan step says, what the exporter serves. (Of compiled
files: beside their emitters.)"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.derivation import ROOT
from pipelines.commands.cli import app
from pipelines.runs.exporter import application
from pipelines.runs.ledger import Ledger
from tests.cluster import kubelet
from tests.cluster.conftest import MakeWorld
from tests.cluster.world import World
from tests.pipelines.engines.argo.compiled import SETTINGS
from wfm.artifacts import Store
from wfm.cluster.kinds import POD
from wfm.cluster.refusals import meaning, shortened
from wfm.credentials import shown

CANARY = "canary-5f3e9a-hunter2"
ADDRESS = f"https://me:{CANARY}@registry.example/v2/token?account=me&sig={CANARY}"


@pytest.fixture
def leaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment and files with secrets."""
    keys = tmp_path / "secret" / "credentials"
    keys.parent.mkdir()
    keys.write_text(f"[default]\naws_access_key_id = {CANARY}\naws_secret_access_key = {CANARY}\n")
    found = {
        "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": CANARY, "HF_TOKEN": CANARY, "WFM_METRICS_TOKEN": CANARY,
        "AWS_SHARED_CREDENTIALS_FILE": str(keys),
    }  # fmt: skip
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def everything_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    yield from (
        (path, path.read_bytes()) for path in folder.rglob("*") if path.is_file() and "secret" not in path.parts
    )


def assert_silent(folder: Path, *texts: str) -> None:
    assert [path for path, data in everything_below(folder) if CANARY.encode() in data] == []
    assert [text for text in texts if CANARY in text] == []


@pytest.fixture
def told(make_world: MakeWorld, leaky: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> World:
    """A run whose job's image cannot be had: the registry's answer, which the kubelet passes on, holds a secret's address."""
    says = f"failed to authorize: Head {ADDRESS}: 401"
    rows = [
        dataclasses.replace(
            row, do=kubelet._waiting("ImagePullBackOff" if "back-off" in row.event else "ErrImagePull", says)
        )
        if "its image c" in row.event
        else row
        for row in kubelet.ROWS
    ]
    monkeypatch.setattr(kubelet, "ROWS", tuple(rows))
    world = make_world()
    world.kubelet.no_image.add(world.settings.image("training"))
    asked = world.ask("node", retries=0)
    launching = world.launcher(asked)
    world.until(lambda: "cannot be pulled" in str(asked.run.read("launcher/node.json")), 900)
    assert_silent(world.folder)
    world.until(lambda: asked.key in launching.ended, 7200)
    assert "cannot be pulled" in launching.ended[asked.key].reason
    assert CANARY not in launching.ended[asked.key].reason
    return world


def test_what_a_launcher_says_and_writes_down(told: World, caplog: pytest.LogCaptureFixture) -> None:
    assert_silent(told.folder, caplog.text)


def test_what_status_and_logs_show(told: World) -> None:
    url, (run,) = told.store.url, told.store.runs.list()
    run.write("spec.json", json.dumps({**run.spec(), "nodes": [{"name": "node", "stage": "train_world_model"}]}))
    assert "***@registry.example/v2/token" in str(run.read_outcome("node", 1)), "it is told, without what it carries"
    for words in (("runs",), ("status", "last"), ("logs", "node", "--run", "last"), ("logs", "last", "node")):
        done = CliRunner().invoke(app, [*words, "--store", url])
        assert_silent(told.folder, done.output)
    shows = CliRunner().invoke(app, ["status", "last", "--store", url], env={"COLUMNS": "300"}).output
    assert "cannot be pulled" in " ".join(shows.split())


def test_what_the_exporter_serves(told: World) -> None:
    ledger = Ledger(told.store)
    ledger.look()
    served: list[Any] = []
    answer = application(ledger, CANARY, 30.0)
    for path, given in (
        ("/metrics", f"Bearer {CANARY}"),
        ("/metrics", "Bearer wrong"),
        ("/healthz", ""),
        ("/other", ""),
    ):
        environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "HTTP_AUTHORIZATION": given}
        served += [*answer(environ, lambda *words, to=served: to.append(str(words).encode()))]
    assert_silent(told.folder, *(each.decode() for each in served))
    assert any(b"wfm_attempts_total" in each for each in served)


@pytest.mark.parametrize("more", [(), ("--videos", ADDRESS), ("--videos", f"s3://bucket/raw?X-Amz-Signature={CANARY}")])
def test_what_the_plan_step_says(leaky: dict[str, str], tmp_path: Path, more: tuple[str, ...]) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps(SETTINGS.resolved()))
    words = ["--run-id", "nightly", "--pipeline", "curate", "--profile", "smoke", "--store", str(tmp_path / "store")]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.plan_step", *words, "--out", str(tmp_path / "out"), *more],
        env={**os.environ, **leaky, "PYTHONPATH": str(ROOT), "WFM_CLUSTER": str(tmp_path / "cluster.json")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == (78 if more else 0), done.stderr
    assert_silent(tmp_path, done.stdout, done.stderr)
    if not more:
        assert Store.open(tmp_path / "store").runs.of("nightly").spec()["pipeline"] == "curate"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (422, {"message": f"admission webhook denied: env AWS_SECRET_ACCESS_KEY={CANARY}", "reason": "Invalid"}),
        (403, {"message": f"exceeded quota: {ADDRESS}", "reason": "Forbidden"}),
        (500, f"proxy {ADDRESS} is away"),
    ],
)
def test_what_a_server_refuses_with(leaky: dict[str, str], status: int, body: Any) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    assert CANARY not in str(meaning(status, {}, text, "create", POD, "wfm", "x"))


def test_prose_stays_and_what_is_cut_was_blanked_before(leaky: dict[str, str]) -> None:
    words = "train_tokenizer_continuous.steps=5: give 10 or more (TOKENIZERS_PARALLELISM=false)"
    assert shown(words) == words
    long = "x" * 580 + f" {ADDRESS}"
    assert "canary" not in shortened(long)
    assert "canary" not in str(meaning(500, {}, long, "get", POD, "wfm"))
