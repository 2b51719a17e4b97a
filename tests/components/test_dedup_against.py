"""A new batch against what was compared before, and what would go before anything goes: through the stage and the command."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.commands.cli import app
from tests.components.test_curation_stages import encode, world
from wfm.artifacts import Artifact, Store
from wfm.curation.rows import DuplicatePair
from wfm.errors import InputError
from wfm.parts.tables import read_folder

Stage = Callable[..., Artifact]
LOOK = {"look": True, "exact_up_to": 0}


def inputs_of(run_stage: Stage, folder: Path) -> dict[str, Artifact]:
    clips = run_stage("split_clips", videos=run_stage("ingest_videos", {"videos": str(folder)}))
    scores = run_stage("score_clips", clips=clips)
    return {"clips": clips, "scores": scores, "embeddings": run_stage("embed_clips", {"signatures": True}, clips=clips)}


def test_a_new_batch_is_compared_with_the_old_and_the_answer_is_that_of_one_run(
    run_stage: Stage, store: Store, tmp_path: Path
) -> None:
    for seed in range(3):
        encode(tmp_path / "in" / f"{seed}.mp4", world(seed, shots=1))
    encode(tmp_path / "in" / "0-again.mp4", world(0, shots=1), crf="30")
    before = run_stage("dedup_clips", LOOK, **inputs_of(run_stage, tmp_path / "in"))
    encode(tmp_path / "in" / "1-again.mp4", world(1, shots=1), crf="30")
    encode(tmp_path / "in" / "2-cropped.mp4", world(2, shots=1)[3:, 4:, :61])
    inputs = inputs_of(run_stage, tmp_path / "in")
    whole = run_stage("dedup_clips", LOOK, **inputs)
    after = run_stage("dedup_clips", {**LOOK, "against": before.key[:12]}, **inputs)
    assert after.key not in (whole.key, before.key)
    made = before.key
    for digit, (kind, of) in enumerate([("selection", "duplicates"), ("dataset", "selection"), ("dataset", "dataset")]):
        attempt = store.attempt(str(digit) * 64)
        made = attempt.commit(stage=kind, kind=kind, counts={}, inputs={of: made}).key
    assert run_stage("dedup_clips", {**LOOK, "against": made}, **inputs).manifest.digest == after.manifest.digest
    assert after.manifest.counts["compared_before"] == 4
    assert after.table("duplicates") == whole.table("duplicates")
    assert read_folder(after, "pairs", DuplicatePair) == read_folder(whole, "pairs", DuplicatePair)
    tiers = after.table("duplicates").column("tier").to_pylist()
    assert sorted(filter(None, tiers)) == ["embedding", "embedding", "perceptual"]

    with pytest.raises(InputError, match=r"threshold = 0\.95"):
        run_stage("dedup_clips", {**LOOK, "threshold": 0.9, "against": before.key}, **inputs)
    other = run_stage("embed_clips", {"signatures": True, "frames": 4}, clips=inputs["clips"])
    with pytest.raises(InputError, match="made with frames = 8, this run has 4"):
        run_stage("dedup_clips", {**LOOK, "against": before.key}, **{**inputs, "embeddings": other})
    with pytest.raises(InputError, match="of kind 'clips'"):
        run_stage("dedup_clips", {"against": inputs["clips"].key}, **inputs)

    keys = set(store.committed_keys())
    shown = CliRunner().invoke(
        app,
        ["curate", "duplicates", whole.key, "--look", "--threshold", "0.95", "--store", str(tmp_path / "store")],
        env={"COLUMNS": "200"},
    )
    assert shown.exit_code == 0, shown.output
    (line,) = [line.split() for line in shown.output.splitlines() if " 0.95 " in line]
    assert [word for word in line if word[0].isdigit()][:8] == ["0.95", "3", "3", "2", "3", "0", "1", "2"]
    assert "perceptual" in shown.output
    assert set(store.committed_keys()) == keys, "a dry run"
