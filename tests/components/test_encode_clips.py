"""Clips of any length, size and rate and still images through the stage that encodes them, with their text and signals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.components.one_clip_parts import dataset
from tests.components.test_separate_artifacts import tokenizer as tokenizer  # the fixture
from tests.wfm.data.test_energon import opened
from wfm.artifacts import Artifact, Store
from wfm.artifacts.pull import pull
from wfm.data.captions import read_text
from wfm.data.encoded_samples import require_samples
from wfm.data.signals import read_signals

Stage = Callable[..., Artifact]
SHAPES = {0: ((14, 24, 32), 30.0), 1: ((1, 33, 20), 0.0), 2: ((3, 16, 16), 24.0), 4: ((1, 16, 16), 0.0)}
OWN = {"take": "clips", "max_pixels": 600}


@pytest.fixture
def data(store: Store) -> Artifact:
    return dataset(store, range(8), captions={1: "to the left"}, shapes=SHAPES)


def test_everything_has_its_own_shape_and_joins_its_text_and_signals(
    run_stage: Stage, store: Store, tokenizer: Artifact, data: Artifact, tmp_path: Path
) -> None:
    latents = run_stage("encode_latents", {**OWN, "mirror": True}, dataset=data, tokenizer=tokenizer)
    found = require_samples(latents, "train")
    rows = {row["sample_id"]: row for row in found.table.table().to_pylist()}
    assert {name: (*found.shapes[row], rows[name]["fps"], rows[name]["kind"]) for row, name in enumerate(found.ids)} == {
        f"clip{number}:0{turn}": what
        for number, what in {
            0: (4, 5, 7, 30.0, "video"),  # 13 of 14 frames, of 24x32 pixels 20x28
            1: (1, 7, 4, 0.0, "image"),  # of 33x20 pixels 28x16
            4: (1, 4, 4, 0.0, "image"),
            5: (3, 4, 4, 24.0, "video"),
            6: (3, 4, 4, 24.0, "video"),
        }.items()
        for turn in ("", ":mirrored")
    }  # fmt: skip
    assert latents.manifest.skipped == {"too_short": 1, "too_small": 0}, "clip2 has 3 frames"
    assert latents.manifest.counts == {"inputs": 8, "outputs": 12, "frames_left_over": 1 + 3 + 4 * 1}
    read = [found.read(row) for row in range(len(found))]
    assert [tuple(sample["latents"].shape[1:]) for sample in read] == [tuple(shape) for shape in found.shapes]
    pull(latents, tmp_path / "pulled", "all")
    assert set(opened(tmp_path / "pulled", "train")) == {row["key"] for row in rows.values()}

    clips, starts, frames, mirrored = (
        found.table.column(name).to_pylist() for name in ("clip_id", "start_frame", "num_frames", "mirrored")
    )
    text = {"mirror": True, "text": {"encoder": "minilm", "cache": str(tmp_path / "cache")}}
    texts = run_stage("encode_text", text, dataset=data)
    captions = read_text(texts, "train", found.table.column("clip_id"), np.array(mirrored))
    assert len(captions.of_sample) == len(found)
    signals = read_signals(run_stage("encode_signals", {"mirror_signs": {"actions": [-1]}}, dataset=data), "train")
    actions = signals.windows(clips, starts, frames, mirrored=mirrored, mirror_signs={"actions": [-1]})
    for row, name in enumerate(found.ids):
        assert actions["has_actions"][row] == (rows[name]["kind"] == "video"), "an image has no action"
        acted = actions["actions"][row, : frames[row]]
        assert (acted == (0 if rows[name]["kind"] == "image" else -7 if mirrored[row] else 7)).all()


def test_windows_of_a_data_set_with_images_are_as_before(run_stage: Stage, tokenizer: Artifact, data: Artifact) -> None:
    latents = run_stage("encode_latents", {"size": [16, 16], "num_frames": 9}, dataset=data, tokenizer=tokenizer)
    found = require_samples(latents, "train")
    assert set(found.ids) == {"clip0:0", "clip5:0", "clip6:0"}
    assert {tuple(shape) for shape in found.shapes} == {(3, 4, 4)}
    assert latents.manifest.skipped["too_short"] == 3, "clip2 and two images"
