"""Part ranges, in real processes: whatever becomes of them, the plain call's artifact is that of a call without ranges, byte
for byte, and no part is made twice."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.part_range import PartRange
from tests.components.conftest import runner_of
from tests.components.one_clip_parts import dataset
from tests.components.range_processes import Node, side_by_side
from wfm.artifacts import Artifact, Store
from wfm.errors import InputError

PARTS = 16
SHAPE = {"size": [16, 16], "num_frames": 9}
PREDICT = {
    "family": "diffusion",
    "past_frames": 5, "examples": 2, "max_windows": 0, "windows_per_part": 1, "sampling": {"steps": 1, "batch_size": 4},
}  # fmt: skip
BY_NATURE = ("attempt", "created_at", "timings", "resources", "fence")
"""Of a manifest: ids, times, and what it took. A part that a killed process had begun has a higher fence."""
OF_THE_CALL = ("run_id", "parts_made", "parts_before")
"""Of what an artifact's manifest says besides: who made which of its parts."""


def film(path: Path, seed: int) -> None:
    """A second and a half of 64x64 that pans."""
    import av

    picture = np.random.default_rng(seed).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    wide = np.kron(picture, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=24)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast", "threads": "1"}
        for t in range(36):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[:, t : t + 64]), "rgb24")))
        out.mux(stream.encode())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Artifact]]:
    """A store with the inputs of every stage below: videos, and a data set with all that generation reads."""
    folder = tmp_path_factory.mktemp("corpus")
    store = Store.open(folder / "store")
    run = runner_of(store, folder / "scratch")
    (folder / "films").mkdir()
    for seed in range(PARTS):
        film(folder / "films" / f"{seed}.mp4", seed)
    found = {"videos": run("ingest_videos", {"videos": str(folder / "films"), "part_prefix_length": 8})}
    found["dataset"] = dataset(store, range(PARTS), splits=("train", "val", "test"))
    network = {
        "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8],
        "mid_blocks": 0, "mid_attention": False, "linear_code": True,
    }  # fmt: skip
    fast = {"steps": 1, "batch_size": 2, "validate_every": 0, "warmup_steps": 1}
    settings = {"model": network, "training": fast, "crop_frames": 9, **SHAPE}
    found["tokenizer"] = run("train_tokenizer", settings, dataset=found["dataset"])
    found["latents"] = run("encode_latents", SHAPE, dataset=found["dataset"], tokenizer=found["tokenizer"])
    found["signals"] = run("encode_signals", {}, dataset=found["dataset"])
    small = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4}
    world = {
        "family": "diffusion",
        "training": fast,
        "diffusion": {"network": small},
        "edm": {"condition_latents": [2]},
    }
    beside = {name: found[name] for name in ("latents", "tokenizer", "signals")}
    return folder / "store", {**found, "model": run("train_world_model", world, **beside)}


def node_on(corpus: tuple[Path, dict[str, Artifact]], folder: Path, stage: str, **config: Any) -> tuple[Node, Store]:
    """A node of `stage` on a copy of the store."""
    source, found = corpus
    shutil.copytree(source, folder / "store")
    roles = {"split_clips": ["videos"], "encode_latents": ["dataset", "tokenizer"]}.get(
        stage, ["dataset", "signals", "latents", "tokenizer", "model"]
    )
    given = {"split_clips": {}, "encode_latents": {**SHAPE, "stride_frames": 1}, "generate_videos": PREDICT}[stage]
    store = Store.open(folder / "store")
    # another redo than that of the corpus: nothing is there yet
    return Node(store, folder, stage, {**given, **config}, {role: found[role] for role in roles}, redo="here"), store


def tree(store: Store, key: str) -> dict[str, Any]:
    """Every byte of an artifact and of its parts, and what their manifests say but for what differs by nature."""
    artifact = store.artifact(key)
    found: dict[str, Any] = {}
    for name, one in [("", artifact), *((entry.name, artifact.part(entry.name)) for entry in artifact.parts)]:
        manifest = {
            field: value for field, value in json.loads(one.manifest.to_bytes()).items() if field not in BY_NATURE
        }
        if not name:
            manifest["extra"] = {field: value for field, value in manifest["extra"].items() if field not in OF_THE_CALL}
        found[f"{name}/manifest"] = manifest
        root = Path(one.url.removeprefix("file://"))
        found |= {f"{name}/{path.relative_to(root)}": path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert store.verify(key).ok
    return found


@pytest.mark.parametrize(
    "stage",
    ["split_clips", *(pytest.param(name, marks=pytest.mark.long) for name in ("encode_latents", "generate_videos"))],
)
def test_seven_ranges_in_three_processes_killed_and_repeated_equal_the_plain_run(
    corpus: tuple[Path, dict[str, Artifact]], tmp_path: Path, stage: str
) -> None:
    (tmp_path / "plain").mkdir(), (tmp_path / "ranges").mkdir()
    plain, unbroken = node_on(corpus, tmp_path / "plain", stage)
    ranged, store = node_on(corpus, tmp_path / "ranges", stage)
    part = ranged.part
    codes = side_by_side(
        stage,
        [part("0/7"), part("3/7", "after_part"), part("JOB_COMPLETION_INDEX/7", JOB_COMPLETION_INDEX="6")],
        [part("1/7", "before_part_commit"), plain.plain],  # 4/7 is lost: nobody ever begins it
        [part("2/7", "after_part_commit"), part("5/7", "after_range")],
    )
    assert codes == [[0, -9, 0], [-9, 0], [-9, -9]]
    key = plain.key_file.read_text()
    assert not store.has(key)
    assert not ranged.key_file.exists()
    with pytest.raises(InputError, match="named"):
        store.resolve("things/named")
    again = [part("1/7"), part("2/7"), part("3/7"), part("5/7"), ranged.plain, part("0/7")]
    assert side_by_side(stage, again) == [[0] * 6]
    assert ranged.key_file.read_text() == key
    assert tree(store, key) == tree(unbroken, key)
    assert store.resolve("things/named") == key

    names = [entry.name for entry in store.artifact(key).parts]
    size = [len(PartRange(index, 7).among(names)) for index in range(7)]
    outcomes = ranged.outcomes()
    once, twice = ["6/7", ""], ["0/7", "1/7", "2/7", "3/7", "5/7"]
    assert Counter(one["parts"] for one in outcomes) == Counter([*once, *twice, *twice])
    assert [one["outcome"] for one in outcomes if one["parts"] == "0/7"] == ["done", "cached"]
    made = {one["parts"]: one["parts_made"]["made"] for one in outcomes if "parts_made" in one}
    assert made == {
        "0/7": size[0],
        "1/7": size[1],
        "2/7": size[2] - 1,
        "3/7": size[3] - 1,
        "5/7": 0,
        "6/7": size[6],
    }
    told = store.artifact(key).manifest
    assert told.extra["parts_made"] == {"made": size[4], "of": len(names)}
    assert told.extra["parts_before"]["parts"] == len(names) - size[4]
    used = {entry.name: store.part(entry.key).manifest.resources["cpu_seconds"] for entry in store.artifact(key).parts}
    before = sum(used[name] for name in names if name not in PartRange(4, 7).among(names))
    assert told.extra["parts_before"]["cpu_seconds"] == pytest.approx(before)
    assert told.resources["cpu_seconds"] > sum(used.values())
