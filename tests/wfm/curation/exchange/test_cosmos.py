"""cosmos-curate's files: what it wrote becomes a data set, ours goes out in its layout and comes back the same."""

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipelines.commands.curate import app
from wfm.artifacts import Artifact, Store
from wfm.curation.dataset.exclude import exclude_in_store
from wfm.curation.exchange.cosmos_export import export_cosmos
from wfm.curation.exchange.cosmos_import import import_cosmos
from wfm.data.shards import iter_samples
from wfm.errors import DataError, InputError

IDS = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"s3://in/{n // 2}.mp4_{n * 100}_{n * 100 + 6}")) for n in range(6)]


def meta(number: int, **changed: Any) -> dict[str, Any]:
    """As cosmos-curate writes it; clips 2n and 2n + 1 are of one video."""
    windows = [
        {"start_frame": 0, "end_frame": 5, "qwen_caption": f"clip {number}"}
    ]  # the last frame, not the one after it
    if number == 1:
        windows[0]["qwen_enhanced_caption"] = "a better clip 1"
    if number == 2:
        windows[0]["end_frame"] = 2
        windows.append({"start_frame": 3, "end_frame": 5, "qwen_caption": "and its end", "qwen_prompt_tokens": 9})
    return {
        "span_uuid": IDS[number],
        "source_video": f"s3://in/{number // 2}.mp4",
        "duration_span": [4.0 * number, 4.0 * number + 0.25],
        "width_source": 64, "height_source": 48, "framerate_source": 24.0,
        "clip_location": f"s3://out/clips/{IDS[number]}.mp4",
        "width": 32, "height": 32, "framerate": 24.0, "num_frames": 6, "video_codec": "h264", "num_bytes": 1,
        "windows": windows, "filtered_windows": [], "valid": True, "has_caption": True,
        **changed,
    }  # fmt: skip


@pytest.fixture
def theirs(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    """Six metas: one is not valid, one has lost its clip."""
    root = tmp_path / "theirs"
    for folder in ("metas/v0", "clips", "ce1_embd_224p_parquet"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(IDS):
        values = meta(number, valid=number != 4)
        (root / f"metas/v0/{name}.json").write_text(json.dumps(values))
        frames = np.random.default_rng(number).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
        write_video(root / f"clips/{name}.mp4", frames)
    (root / f"clips/{IDS[5]}.mp4").unlink()
    vectors = [[float(n), 0.5, -1.0] for n in range(6)]
    pq.write_table(
        pa.table({"id": IDS, "embedding": pa.array(vectors, pa.list_(pa.float32()))}),
        root / "ce1_embd_224p_parquet/x_0.parquet",
    )
    return root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def samples(dataset: Artifact) -> dict[str, dict[str, bytes]]:
    shards = [entry.path for entry in dataset.files() if entry.path.endswith(".tar")]
    return {sample.key: sample.members for path in shards for sample in iter_samples(dataset.fetch(path))}


def test_what_they_wrote_becomes_a_data_set(store: Store, theirs: Path) -> None:
    dataset = import_cosmos(store, theirs)
    assert dataset.manifest.counts == {"inputs": 6, "outputs": 4}
    assert dataset.manifest.skipped == {"no_clip_file": 1, "not_valid": 1}
    rows = {row["caption"]: row for row in dataset.table("clips").to_pylist()}
    assert set(rows) == {"clip 0", "a better clip 1", "clip 2 and its end", "clip 3", "clip 4"}
    assert rows["clip 0"]["split"] == rows["a better clip 1"]["split"] != "", "no video is on both sides"
    assert rows["clip 2 and its end"]["start_seconds"] == 8.0
    said = dataset.table("caption_windows").to_pylist()
    by_text = {row["caption"]: row for row in said}
    assert len(by_text) == len(said) == 5, "clip 4 is not valid"
    assert {
        name: (row["start_frame"], row["end_frame"]) for name, row in by_text.items() if "2" in name or "end" in name
    } == {
        "clip 2": (0, 3),
        "and its end": (3, 6),
    }, "our windows end with the frame after the last"
    assert by_text["clip 1"]["long"] == "a better clip 1"
    assert {row["model"] for row in said} == {"qwen"}
    found = samples(dataset)
    for number, caption in enumerate(("clip 0", "a better clip 1", "clip 2 and its end", "clip 3")):
        members = found[rows[caption]["clip_id"]]
        assert members["mp4"] == (theirs / f"clips/{IDS[number]}.mp4").read_bytes()
        assert members["emb.npy"].endswith(np.array([number, 0.5, -1.0], np.float16).tobytes())
    assert import_cosmos(store, theirs).key == dataset.key, "the same files are the same artifact"
    assert store.verify(dataset.key).ok


def test_out_and_in_again(store: Store, theirs: Path, tmp_path: Path) -> None:
    dataset = import_cosmos(store, theirs)
    counts = export_cosmos(dataset, tmp_path / "out")
    assert counts == {"exported": 4, "refused": 1, "excluded": 0}
    written = [json.loads(path.read_text()) for path in (tmp_path / "out/metas/v0").iterdir()]
    assert len(written) == 4
    for one in written:
        number = round(one["duration_span"][0] / 4)
        same = set(meta(0)) - {"span_uuid", "clip_location", "num_bytes", "windows"}
        assert {name: one[name] for name in same} == {name: meta(number)[name] for name in same}
        tokens = [
            {name: value for name, value in window.items() if "tokens" not in name}
            for window in meta(number)["windows"]
        ]
        assert one["windows"] == tokens
        assert one["num_bytes"] == (tmp_path / "out" / one["clip_location"]).stat().st_size
    again = import_cosmos(Store.open(tmp_path / "other"), tmp_path / "out")
    assert samples(again) == samples(dataset)
    kept = [row for row in dataset.table("clips").to_pylist() if row["kept"]]
    assert again.table("clips").to_pylist() == kept
    videos = [of.table("videos").to_pylist() for of in (dataset, again)]
    assert videos[0][:2] == videos[1] == [{**row, "width": 64, "height": 48, "fps": 24.0} for row in videos[1]]
    windows = [of.table("caption_windows").to_pylist() for of in (dataset, again)]
    assert windows[0] == windows[1]
    assert len(windows[0]) == 5
    assert export_cosmos(dataset, tmp_path / "out") == counts, "an export may be done again over itself"


def test_rights_go_out_and_come_in(store: Store, theirs: Path, tmp_path: Path) -> None:
    export_cosmos(import_cosmos(store, theirs), tmp_path / "out")
    for path in (tmp_path / "out/metas/v0").iterdir():
        values = json.loads(path.read_text())
        assert values["wfm"]["rights"]["licence"] == "unknown"
        values["wfm"]["rights"] = {"licence": "CC0-1.0", "consent": "form 12"}
        path.write_text(json.dumps(values))
    stated = import_cosmos(store, tmp_path / "out")
    export_cosmos(stated, tmp_path / "again")
    for dataset in (stated, import_cosmos(Store.open(tmp_path / "other"), tmp_path / "again")):
        (right,) = json.load(dataset.open("card.json"))["rights"]
        assert (right["licence"], right["consent"], right["videos"], right["clips"]) == ("CC0-1.0", "form 12", 2, 4)


def test_excluded_clips_do_not_go_out(store: Store, theirs: Path, tmp_path: Path) -> None:
    dataset = import_cosmos(store, theirs)
    gone = next(iter(samples(dataset)))
    fewer, _ = exclude_in_store(store, dataset, [gone])
    assert export_cosmos(fewer, tmp_path / "out") == {"exported": 3, "refused": 1, "excluded": 1}
    assert len(list((tmp_path / "out/clips").iterdir())) == 3


def test_what_is_wrong_is_named(store: Store, theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.json"):
        import_cosmos(store, tmp_path)
    shutil.copytree(theirs / "ce1_embd_224p_parquet", theirs / "iv2_embd_parquet")
    with pytest.raises(InputError, match="has several; name one of ce1_embd_224p_parquet, iv2_embd_parquet"):
        import_cosmos(store, theirs)
    broken = theirs / f"metas/v0/{IDS[0]}.json"
    broken.write_text(json.dumps({"span_uuid": IDS[0]}))
    with pytest.raises(DataError, match=rf"{IDS[0]}\.json: no clip as cosmos-curate writes it.*source_video"):
        import_cosmos(store, theirs, embeddings="iv2_embd_parquet")


def test_no_clip_is_no_success(store: Store, theirs: Path) -> None:
    """NeMo Curator ends well with 0 clips when a decoder is missing."""
    shutil.rmtree(theirs / "clips")
    with pytest.raises(DataError, match=r"the data set is empty.*no clip"):
        import_cosmos(store, theirs)


def test_a_clip_that_is_not_its_metas(store: Store, theirs: Path, tmp_path: Path) -> None:
    export_cosmos(import_cosmos(store, theirs), tmp_path / "out")
    one, two, *_ = sorted((tmp_path / "out/clips").iterdir())
    shutil.copyfile(two, one)
    with pytest.raises(DataError, match="is not the clip that its meta describes"):
        import_cosmos(Store.open(tmp_path / "other"), tmp_path / "out")


def test_the_commands(store: Store, theirs: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["import", str(theirs), "street", "--store", store.url])
    assert done.exit_code == 0, done.output
    assert "4 clips; left out: no_clip_file: 1, not_valid: 1" in done.output
    done = run(app, ["export", "dataset/street", str(tmp_path / "out"), "--store", store.url])
    assert done.exit_code == 0, done.output
    assert "4 clips in" in done.output
