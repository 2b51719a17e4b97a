"""What is compiled for engines is kept as files, so that a change of it is seen; what must hold of it is asked of the objects
(`tests/pipelines/engines/`)."""

import pytest
import yaml

from tests.cluster import strict
from tests.manifests.compiled import COMPILED, RENDERED, compile_into, differences
from wfm.cluster.lint import lint
from wfm.cluster.settings import ClusterSettings


@pytest.mark.long  # `make check`, which each `make test` begins with, asks the same
def test_what_is_kept_is_what_is_compiled() -> None:
    assert differences() == []


def test_kept_objects_of_argo_are_whole_and_have_no_fault() -> None:
    settings = ClusterSettings.read(str(RENDERED / "cluster.json"))
    for name in COMPILED:
        if name.startswith("argo/"):
            files = sorted((RENDERED / name).glob("*.yaml"))
            objects = [one for file in files for one in yaml.safe_load_all(file.read_text())]
            assert {one["kind"] for one in objects} >= {"WorkflowTemplate", "ConfigMap", "Role"}
            assert [strict.faults(one) for one in objects] == [[]] * len(objects)
            assert lint(objects, settings) == []


def test_the_same_bytes_whoever_compiles_and_dry_run_writes_nothing(tmp_path, monkeypatch) -> None:
    words = COMPILED["argo/curate-nightly"]
    canaries = {
        "AWS_SECRET_ACCESS_KEY": "canary-1",
        "HF_TOKEN": "canary-2",
        "WFM_STORE_OPTIONS": '{"secret": "canary-3"}',
    }
    for name, value in {**canaries, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".netrc").write_text("machine bucket login canary-4 password canary-5")
    said = compile_into(tmp_path / "a", words)
    kept = {path.name: path.read_bytes() for path in (RENDERED / "argo/curate-nightly").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == kept
    assert b"canary" not in b"".join(kept.values())
    assert "canary" not in said
    said = compile_into(tmp_path / "b", (*words, "--dry-run"))
    assert "workflowtemplate.yaml" in said
    assert not (tmp_path / "b").exists()
