"""Raw files through every curation stage to a data set, in this process: what is kept, why not, and what is redone."""

import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.context import Context, check_yield
from components.derivation import code_id
from components.entrypoint import node_key
from wfm.actions import ActionSpec
from wfm.artifacts import Artifact, Store
from wfm.curation.exchange.cosmos_export import export_cosmos
from wfm.curation.exchange.cosmos_import import import_cosmos
from wfm.data.shards import iter_samples, read_index
from wfm.data.windows import windows

FRAMES = 48
SELECT: dict[str, Any] = {"minimum_sharpness": None}


def world(seed: int, shots: int = 2) -> np.ndarray:
    """uint8 [96, 64, 64, 3]: shots of a window that glides over a random picture."""
    from PIL import Image

    frames = []
    for shot in range(shots):
        rng = np.random.default_rng(100 * seed + shot)
        coarse = rng.integers(0, 256, (8, 20, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((64 + FRAMES * 2, 64), Image.Resampling.BICUBIC))
        light = 1.0 if shot % 2 == 0 else 0.4  # so that nobody can miss the cut
        frames += [(light * picture[:, 2 * t : 2 * t + 64]).astype(np.uint8) for t in range(FRAMES)]
    return np.stack(frames)


def encode(path: Path, frames: np.ndarray, *, size: int = 64, crf: str = "20") -> None:
    import av
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": crf, "preset": "veryfast", "threads": "1"}
        for pixels in frames:
            # Scaled here, not by swscale: its RGB scaler reads past the end of rows, so bytes would differ by chance.
            scaled = np.asarray(Image.fromarray(pixels).resize((size, size)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(scaled), "rgb24")))
        container.mux(stream.encode())


def with_actions(path: Path, session: str) -> None:
    spec = ActionSpec(names=("pan",), units=("px/s",), mean=(0.0,), scale=(1.0,))
    header = {"schema_version": 1, "action_spec": spec.resolved(), "session_id": session, "view": "0"}
    seconds = np.arange(2 * FRAMES) / 24
    table = pa.table({"pts_seconds": seconds, "action": pa.array([[48.0]] * len(seconds), pa.list_(pa.float32()))})
    header_bytes = json.dumps(header).encode()
    pq.write_table(table.replace_schema_metadata({b"wfm": header_bytes}), path.with_suffix(".actions.parquet"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good recordings of two shots; a scaled copy of one; a still picture; a text file that is called a video."""
    folder = tmp_path_factory.mktemp("in")
    for seed in range(4):
        encode(folder / f"good {seed}.mp4", world(seed))
    with_actions(folder / "good 0.mp4", "s0")
    encode(folder / "upload.mp4", world(0), size=48, crf="28")
    encode(folder / "lobby.mp4", np.repeat(world(9)[:1], 2 * FRAMES, axis=0))
    (folder / "notes.mp4").write_text("this is no video")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def curated(store: Store, videos: Path) -> dict[str, Artifact]:
    """The artifact of every stage, by kind, made once."""
    return curate(store, videos)


def run_stage(store: Store, name: str, config: dict[str, Any] | None = None, **inputs: Artifact) -> Artifact:
    """A stage in this process, as the entry point would run it."""
    module = importlib.import_module(f"components.{name}")
    keys = {of: artifact.key for of, artifact in inputs.items()}
    key = node_key({"component": name, "stage": name, "config": config or {}}, keys, store)
    if store.has(key):
        return store.artifact(key)
    attempt = store.attempt(key)
    context = Context(
        stage=name,
        component=name,
        node=name,
        run_id="test",
        key=key,
        code_id=code_id(name),
        config=module.CONFIG.parse(config or {}),
        store=store,
        inputs=inputs,
        out=attempt.path,
        scratch=Path(store.scratch(key)),
    )
    result = module.run(context)
    check_yield(result, name)
    made = {"counts": result.counts, "skipped": result.skipped, "parts": result.parts}
    return attempt.commit(stage=name, kind=name, config=context.config.resolved(), **made)


def curate(store: Store, folder: Path) -> dict[str, Artifact]:
    done = {"videos": run_stage(store, "ingest_videos", {"videos": str(folder)})}
    done["clips"] = run_stage(store, "split_clips", videos=done["videos"])
    for kind, name in (("scores", "score_clips"), ("captions", "caption_clips"), ("embeddings", "embed_clips")):
        done[kind] = run_stage(store, name, clips=done["clips"])
    for kind, name, config, inputs in (
        ("duplicates", "dedup_clips", {}, ("clips", "scores", "embeddings")),
        ("selection", "select_clips", SELECT, ("clips", "scores", "duplicates")),
        ("dataset", "write_shards", {}, ("videos", "clips", "scores", "captions", "selection", "embeddings")),
    ):
        done[kind] = run_stage(store, name, config, **{of: done[of] for of in inputs})
    return done


def test_from_files_to_a_data_set(store: Store, curated: dict[str, Artifact], tmp_path: Path) -> None:
    dataset = curated["dataset"]
    rows = dataset.table("clips").to_pylist()
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(Path(row["source"]).name, []).append(row)

    assert [r["reason"] for r in by_name["lobby.mp4"]] == ["static"]
    assert [r["reason"] for r in by_name["upload.mp4"]] == ["duplicate"] * 2
    originals = {r["clip_id"] for r in by_name["good 0.mp4"]}
    assert {r["duplicate_of"] for r in by_name["upload.mp4"]} == originals
    assert len(originals) == 2
    assert all(r["kept"] for seed in range(4) for r in by_name[f"good {seed}.mp4"])
    assert {r["split"] for r in rows if r["kept"]} == {"train", "val", "test"}
    files = {Path(r["source"]).name: r for r in dataset.table("videos").to_pylist()}
    assert files["notes.mp4"]["status"] == "failed"
    assert files["notes.mp4"]["reason"].startswith("not_a_video")
    assert len(files) == 7

    card = json.load(dataset.open("card.json"))
    assert card["clips"] == {"total": 11, "kept": 8, "with_actions": 2}
    assert card["clips_refused"] == {"duplicate": 2, "static": 1} == dataset.manifest.skipped
    assert card["videos_not_used"] == {"not_a_video": 1}
    assert card["bins"] == {"resolution_lt_720_aspect_ratio_1_1_duration_0_5": 8}
    assert card["rights"] == [{"licence": "unknown", "consent": "unknown", "videos": 6, "clips": 8}]
    assert "8 clips" in dataset.fetch("README.md").read_text()

    store.pull(dataset.key, tmp_path / "out", what="all")
    pulled = pq.read_table(tmp_path / "out" / "clips.parquet").to_pylist()
    for table in ("clips.parquet", "videos.parquet"):  # the old code called clip_sha256, source and caption empty
        described = pq.read_table(tmp_path / "out" / table).to_pylist()
        part = (tmp_path / "out/README.md").read_text().split(f"| {table} | meaning |")[1]
        called = part.split("Empty in this data set: ")[1].split(".\n")[0].replace("`", "").split(", ")
        assert called == [name for name in described[0] if all(row[name] in (None, "") for row in described)]
    counts = json.loads((tmp_path / "out" / ".nv-meta/.info.json").read_text())["shard_counts"]
    assert sum(counts.values()) == 8  # Energon's index goes along
    assert all((tmp_path / "out" / shard).is_file() for shard in counts)
    for row in pulled:
        if row["kept"]:
            shard = tmp_path / "out" / row["shard"]
            sample = next(s for s in iter_samples(shard) if s.key == row["clip_id"])
            assert sample.members["txt"].decode() == row["caption"] != ""
            assert json.loads(sample.members["json"])["clip_sha256"] == row["clip_sha256"]
            assert read_index(shard)
            assert np.load(io.BytesIO(sample.members["emb.npy"])).shape == (256,)
    assert pq.read_table(tmp_path / "out" / "videos.parquet").num_rows == 7

    found = list(windows(dataset, "train", num_frames=33, stride_frames=8, size=(64, 64)))
    assert {w.clip_id for w in found} == {r["clip_id"] for r in rows if r["split"] == "train"}
    assert found[0].frames.shape == (33, 64, 64, 3)


def test_out_to_cosmos_curates_layout_and_in_again(curated: dict[str, Artifact], tmp_path: Path) -> None:
    dataset = curated["dataset"]
    assert export_cosmos(dataset, tmp_path / "out") == {"exported": 8, "refused": 3, "excluded": 0}
    again = import_cosmos(Store.open(tmp_path / "other"), tmp_path / "out")
    kept = sorted((row for row in dataset.table("clips").to_pylist() if row["kept"]), key=lambda row: row["clip_id"])
    assert sorted(again.table("clips").to_pylist(), key=lambda row: row["clip_id"]) == kept
    assert kept[0]["motion"] > 0

    def members(of: Artifact) -> dict[str, dict[str, bytes]]:
        tars = [entry.path for entry in of.files() if entry.path.endswith(".tar")]
        found = {sample.key: dict(sample.members) for tar in tars for sample in iter_samples(of.fetch(tar))}
        for sample in found.values():
            del sample["json"]  # its ticks count in microseconds after the import
        return found

    assert members(again) == members(dataset)
    assert sum("actions.parquet" in sample for sample in members(again).values()) == 2


def test_the_same_files_give_the_same_bytes(curated: dict[str, Artifact], videos: Path, tmp_path: Path) -> None:
    again = curate(Store.open(tmp_path / "other"), videos)
    for kind, artifact in curated.items():
        first = {entry.path: entry.sha256 for entry in artifact.files()}
        assert {entry.path: entry.sha256 for entry in again[kind].files()} == first, kind


def test_one_more_video_redoes_its_own_parts_only(store: Store, curated: dict[str, Artifact], videos: Path) -> None:
    encode(videos / "late.mp4", world(7))
    after = curate(store, videos)
    for kind in ("clips", "scores", "captions", "embeddings"):
        known = {part.key for part in curated[kind].parts}
        assert len({part.key for part in after[kind].parts} - known) == 1, kind
    # The new group may push one group across each border of the split: their parts are written again, no others.
    known = {part.key for part in curated["dataset"].parts}
    assert 1 <= sum(part.key not in known for part in after["dataset"].parts) <= 3
    assert len(after["dataset"].parts) == len(curated["dataset"].parts) + 1
