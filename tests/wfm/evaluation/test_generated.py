import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from wfm.actions import ActionSpec
from wfm.artifacts import Store
from wfm.errors import DataError, InputError
from wfm.evaluation.generated import read_generated


def stored(made, tmp_path, card_changes=None, drop=()):
    """`made` as generate_videos lays it out, committed."""
    store = Store.open(str(tmp_path / "store"))
    attempt = store.attempt("d" * 64)
    folder = attempt.path / made.split
    folder.mkdir(parents=True)
    for name, video in made.videos.items():
        if name not in drop:
            save_file({"video": video}, folder / f"{name}.safetensors")
    if "actions" not in drop:
        save_file({"right": made.actions, "shuffled": made.shuffled_actions}, folder / "actions.safetensors")
    pq.write_table(pa.Table.from_pylist(made.samples), folder / "samples.parquet")
    card = {
        "family": made.family,
        "past_frames": made.past_frames,
        "fps": made.fps,
        "action_spec": made.spec.resolved(),
        "headline": made.headline,
        "title": made.title,
        "labels": dict(made.labels),
        **(card_changes or {}),
    }
    card = {name: value for name, value in card.items() if name not in drop}
    (attempt.path / "card.json").write_text(json.dumps(card))
    return attempt.commit(stage="generate_videos", kind="generated")


def test_what_was_written_is_read(make, tmp_path):
    made = make(3)
    found = read_generated(stored(made, tmp_path), "val")
    assert (found.family, found.past_frames, found.fps, found.spec) == ("diffusion", made.past_frames, 24.0, made.spec)
    assert found.variants == ["sampled", "mean", "shuffled_action"]
    for name, video in made.videos.items():
        assert np.array_equal(found.videos[name], video)
    assert np.array_equal(found.shuffled_actions, made.shuffled_actions)
    assert found.samples == made.samples


def test_videos_without_actions_are_read(make, tmp_path):
    null = np.zeros((3, 13, 0), np.float32)
    made = make(3, spec=ActionSpec.null(), actions=null, shuffled_actions=null)
    assert read_generated(stored(made, tmp_path), "val").actions.shape == (3, 13, 0)


def test_another_split_is_refused_and_the_choices_are_named(make, tmp_path):
    with pytest.raises(InputError, match=r"'test'.*val"):
        read_generated(stored(make(2), tmp_path), "test")


def test_videos_of_an_older_version_are_refused_with_what_to_do(make, tmp_path):
    artifact = stored(make(2), tmp_path, drop=("headline", "title", "labels"))
    with pytest.raises(InputError, match=rf"{artifact.key[:12]} .*lacks headline, title, labels; .*generate again"):
        read_generated(artifact, "val")


@pytest.mark.parametrize(
    ("drop", "changes", "message"),
    [
        (("truth",), {}, "lack 'truth'"),
        (("actions",), {}, "actions.safetensors"),
        ((), {"past_frames": 13}, "none are predicted"),
        (("sampled", "mean", "shuffled_action"), {}, "no variant"),
    ],
)
def test_what_is_missing_is_named(make, tmp_path, drop, changes, message):
    with pytest.raises(DataError, match=message):
        read_generated(stored(make(2), tmp_path, changes, drop), "val")
