"""Whole runs against a store that others use too: two at once on one folder, and one on S3."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from wfm.artifacts import Store

Wfm = Callable[..., subprocess.CompletedProcess[str]]
Film = Callable[..., Path]
pytestmark = pytest.mark.smoke
ARGUMENTS = ("run", "curate", "--profile", "smoke", "--videos")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, film: Film) -> Path:
    """Four small videos, which is enough for three splits."""
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(4):
        film(folder / f"{seed}.mp4", seed)
    return folder


def test_two_runs_at_once_do_each_piece_of_work_once(videos: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "WFM_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-m", "pipelines.commands.cli", *ARGUMENTS, str(videos)]
    runs = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    printed = [run.communicate(timeout=400)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(printed)
    store = Store.open(tmp_path / "store")
    outcomes: dict[str, list[str]] = {}
    for run in store.runs.list():
        for attempt in run.read_outcomes():
            assert attempt.outcome is not None
            outcomes.setdefault(attempt.node, []).append(attempt.outcome["outcome"])
    assert {node: found.count("done") for node, found in outcomes.items()} == dict.fromkeys(outcomes, 1)
    assert len(list((tmp_path / "store" / "refs" / "dataset" / "curated-smoke" / "latest").iterdir())) <= 2


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server in this process, reached as a user would reach a private one."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SeCrEt-0123456789")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("WFM_STORE_OPTIONS", json.dumps({"endpoint_url": endpoint}))
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="films")
    yield "s3://films/store"
    server.stop()


def test_a_run_on_s3_and_again(
    bucket: str, videos: Path, tmp_path: Path, wfm: Wfm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    wfm(*ARGUMENTS, str(videos), "--store", bucket, store=tmp_path / "unused")
    again = wfm(*ARGUMENTS, str(videos), "--store", bucket, store=tmp_path / "unused")
    out = tmp_path / "out"
    wfm("artifacts", "pull", "dataset/curated-smoke@latest", str(out), "--store", bucket, store=tmp_path / "unused")
    assert (out / "clips.parquet").is_dir()
    assert list(out.glob("shards/*/*/*.tar"))
    store = Store.open(bucket, json.loads(os.environ["WFM_STORE_OPTIONS"]))
    assert len([run for run in store.runs.list() if run.read_outcomes()]) == 1, "the second run had nothing to do"
    assert "SeCrEt" not in again.stdout + again.stderr
    for run in store.runs.list():
        assert b"SeCrEt" not in json.dumps(run.spec()).encode()


def test_a_missing_bucket_is_one_clear_line(bucket: str, videos: Path, tmp_path: Path, wfm: Wfm) -> None:
    done = wfm(*ARGUMENTS, str(videos), "--store", "s3://nowhere/store", store=tmp_path / "unused", check=False)
    assert done.returncode == 78
    assert "nowhere" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "SeCrEt" not in done.stdout + done.stderr
