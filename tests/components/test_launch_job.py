"""The launcher as a process: what is wrong is said before anything is made, and with the exit codes of a stage."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components import launch_job
from components.derivation import ROOT, code_id
from components.entrypoint import node_key
from tests.wfm.cluster.raw_server import Asked, served, status, whole
from wfm.artifacts import Store
from wfm.cluster.lint import lint
from wfm.cluster.settings import ClusterSettings
from wfm.errors import DataError, WfmError

NOWHERE = "http://127.0.0.1:9"
DIGEST = "sha256:" + "a" * 64
IMAGES = {role: f"registry.example/wfm-{role}@{DIGEST}" for role in ("curation", "training", "control")}
EMPTY = {"metadata": {"resourceVersion": "1"}, "items": []}


class Launch:
    """A spec, a cluster's settings, and the process over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder / "store", {"fsync": False})
        self.run = self.store.runs.create({"pipeline": "test"})
        self.spec: dict[str, Any] = {
            "schema_version": 1, "store": self.store.url, "run_id": self.run.id, "node": "raw", "stage": "simulate_videos",
            "component": "simulate_videos", "kind": "raw_videos", "config": {}, "redo": "", "promote": "raw_videos/test",
            "reads_truth": False, "job_kind": "container", "image": "curation", "resources": {"cpu": 1.0},
            "timeout_seconds": 60.0, "retries": 1, "parts": 0, "code": code_id("simulate_videos", ()),
        }  # fmt: skip
        self.cluster: dict[str, Any] = {"namespace": "research", "images": IMAGES}
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "KUBECONFIG": str(folder / "none"), "WFM_HOME": str(folder / "home"),
        }  # fmt: skip
        self.environment.pop("KUBERNETES_SERVICE_HOST", None)

    @property
    def key(self) -> str:
        return node_key(self.spec, {}, self.store)

    def process(self, *more: str) -> tuple[int, str]:
        """(exit code, what it said)."""
        done = self.run_process(*more)
        return done.returncode, done.stderr

    def run_process(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "components.launch_job", *self._arguments(), *more],
            env=self.environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def __call__(self, url: str) -> tuple[int, str]:
        """The same in this process, which is quicker."""
        spec, cluster, key_out = self._arguments()[1::2]
        try:
            asked = Namespace(spec=spec, cluster=cluster, key_out=key_out, input=[], api=url, dry_run=False)
            end = launch_job.launch(asked)
        except WfmError as error:
            return error.exit_code, str(error)
        return end.exit_code, end.reason

    def _arguments(self) -> list[str]:
        (self.folder / "spec.json").write_text(json.dumps(self.spec))
        (self.folder / "cluster.json").write_text(json.dumps(self.cluster))
        given = {"--spec": "spec.json", "--cluster": "cluster.json", "--key-out": "key"}
        return [word for name, file in given.items() for word in (name, str(self.folder / file))]


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch(tmp_path)


def test_no_kubeconfig(launch: Launch) -> None:
    code, said = launch.process()
    assert code == 78
    assert "no cluster to talk to: there is no kubeconfig at" in said
    assert "no pod with a service account" in said


def refuse(verb: str, plural: str, answer: bytes) -> Callable[[Asked], Iterator[bytes]]:
    """An API server where all is well but one verb on one kind."""

    def serve(asked: Asked) -> Iterator[bytes]:
        if asked.path.endswith(f"/{plural}") and asked.method == verb:
            yield answer
        elif asked.method == "POST":
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            meta = {**asked.json["metadata"], "uid": "u", "resourceVersion": "2", "creationTimestamp": now}
            yield whole({**asked.json, "metadata": meta})
        else:
            yield whole(EMPTY)

    return serve


CANNOT = 'User "system:serviceaccount:research:launcher" cannot {verb} resource "{plural}" in API group "batch"'


@pytest.mark.parametrize(
    ("method", "verb", "plural"), [("GET", "list", "jobs"), ("POST", "create", "jobs"), ("GET", "list", "pods")]
)
def test_no_permission_names_the_verb_and_the_kind(launch: Launch, method: str, verb: str, plural: str) -> None:
    refusal = status(403, "Forbidden", CANNOT.format(verb=verb, plural=plural))
    with served(refuse(method, plural, refusal)) as (url, _):
        code, said = launch.process("--api", url) if verb == "create" else launch(url)
    assert code == 78
    assert f"(system:serviceaccount:research:launcher) may not {verb} {plural}" in said
    assert f"in the namespace 'research': give it a Role with the verb '{verb}' on '{plural}'" in said


def test_a_namespace_without_the_crd(launch: Launch) -> None:
    launch.spec["job_kind"] = "daskjob"
    with served(refuse("GET", "daskjobs", whole(b"404 page not found\n", 404))) as (url, _):
        code, said = launch(url)
    assert code == 78
    assert "does not know DaskJob (kubernetes.dask.org/v1)" in said
    assert "its CRD is not installed" in said


def test_a_plan_of_other_code(launch: Launch) -> None:
    launch.spec["code"] = "f" * 64
    code, said = launch(NOWHERE)
    assert code == 78
    assert f"the plan was made with code {'f' * 12} (" in said
    assert f"the launcher runs code {code_id('simulate_videos', ())}" in said


def test_a_plan_for_another_image(launch: Launch) -> None:
    launch.spec["image_reference"] = f"registry.example/wfm-curation@sha256:{'b' * 64}"
    code, said = launch(NOWHERE)
    assert code == 78
    assert f"the plan names the image {launch.spec['image_reference']}" in said
    assert IMAGES["curation"] in said


@pytest.mark.parametrize("field", ["image", "resources", "job_kind"])
def test_a_spec_that_does_not_say_what_a_job_needs(launch: Launch, field: str) -> None:
    del launch.spec[field]
    code, said = launch(NOWHERE)
    assert (code, f"field {field!r}" in said) == (78, True), said


@pytest.mark.parametrize(("change", "words"), [
    ({"namespce": "x"}, "namespce"), ({"patience": {"poll": 1}}, "patience.poll"), ({"images": {}}, "images.curation is"),
    ({"namespace": "No_Name"}, "No_Name"),
])  # fmt: skip
def test_settings_that_are_wrong(launch: Launch, change: dict[str, Any], words: str) -> None:
    launch.cluster |= change
    code, said = launch(NOWHERE)
    assert (code, words in said) == (78, True), said


def test_what_would_be_punished_later_is_not_made(launch: Launch) -> None:
    launch.cluster["images"] = {**IMAGES, "curation": "registry.example/wfm-curation:latest"}
    with served(refuse("PUT", "none", b"")) as (url, asked):
        code, said = launch(url)
    assert (code, "registry.example/wfm-curation:latest" in said) == (78, True), said
    assert not [one for one in asked if one.method == "POST"]


def test_what_is_there_needs_no_cluster(launch: Launch) -> None:
    with launch.store.attempt(launch.key) as attempt:
        (attempt.path / "made.txt").write_text("x")
        attempt.commit(stage="simulate_videos", kind="raw_videos")
    assert launch.process()[0] == 0
    assert (launch.folder / "key").read_text() == launch.key
    assert launch.store.resolve("raw_videos/test") == launch.key


def test_a_run_that_is_not_there_is_made(launch: Launch) -> None:
    """A workflow's step may be the first to speak of its run."""
    launch.spec["run_id"] = "workflow-7"
    refusal = status(403, "Forbidden", CANNOT.format(verb="create", plural="jobs"))
    with served(refuse("POST", "jobs", refusal)) as (url, _):
        assert launch(url)[0] == 78
    assert launch.store.runs.open("workflow-7").spec()["nodes"][0]["name"] == "raw"


def test_sigterm_detaches_and_touches_nothing(launch: Launch) -> None:
    with served(refuse("PUT", "none", b"")) as (url, asked):
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "components.launch_job", *launch._arguments(), "--api", url],
            env=launch.environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until = time.monotonic() + 60
        while not [one for one in asked if one.method == "POST"]:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "detached; the job goes on, and the next launcher adopts it" in said
    assert {one.method for one in asked} == {"GET", "POST"}


@pytest.mark.parametrize(("text", "says"), [
    ("{", "is not valid JSON"), ("[]", "no object of JSON"), ("{}", "field 'store'"), ('{"store": 3}', "field 'store'"),
    ('{"store": "s", "run_id": "r", "node": "n", "stage": "s", "config": []}', "field 'config'"),
])  # fmt: skip
def test_what_is_no_spec(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        launch_job.launch(
            Namespace(spec=str(tmp_path / "spec.json"), cluster="", key_out="", input=[], api=NOWHERE, dry_run=False)
        )
    assert "spec.json is " in str(caught.value)


@pytest.mark.parametrize("parts", [0, 4])
def test_a_dry_run_prints_what_would_be_made_and_asks_nobody(launch: Launch, parts: int) -> None:
    launch.spec["parts"] = parts
    done = launch.run_process("--dry-run", "--api", NOWHERE)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    first, *rest = listed["items"]
    assert first["metadata"]["annotations"]["wfm.dev/key"] == launch.key
    assert first["metadata"]["annotations"]["wfm.dev/owner"] == f"{launch.run.id}/raw"
    assert [one["kind"] for one in listed["items"]] == ["Job"] * (2 if parts else 1)
    assert len({first["metadata"]["name"], *(one["metadata"]["name"] for one in rest)}) == len(listed["items"])
    assert lint(listed["items"], ClusterSettings.parse(launch.cluster)) == []
    assert not (launch.folder / "key").exists()
    assert not launch.store.has(launch.key)


def test_a_dry_run_says_what_a_cluster_would_punish(launch: Launch) -> None:
    launch.cluster["images"] = {**IMAGES, "curation": "registry.example/wfm-curation:latest"}
    done = launch.run_process("--dry-run")
    assert (done.returncode, done.stdout) == (78, "")
    assert "registry.example/wfm-curation:latest" in done.stderr


def test_a_component_that_is_not_there_and_an_address_that_is_none(launch: Launch) -> None:
    code, said = launch("nonsense")
    assert (code, "--api 'nonsense' is no URL" in said) == (78, True), said
    launch.spec["component"] = "of_tomorrow"
    code, said = launch(NOWHERE)
    assert (code, "this wfm has no component 'of_tomorrow'" in said) == (78, True), said


def test_an_empty_kubeconfig_variable_is_none(launch: Launch) -> None:
    launch.environment |= {"KUBECONFIG": "", "HOME": str(launch.folder)}
    assert "there is no kubeconfig at ~/.kube/config" in launch.process()[1]
