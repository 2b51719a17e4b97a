"""Everything that is known of a clip reaches the data set, and trainers open it as it was written: bins, exclusions, bytes."""

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from pipelines.commands.cli import app
from pipelines.commands.skipped import left_out
from tests.wfm.data.test_energon import opened
from wfm.artifacts import Artifact, Store
from wfm.curation.dataset.exclude import exclude_in_folder, exclude_in_store
from wfm.curation.embed.embedders import digest
from wfm.curation.exchange.cosmos_export import export_cosmos
from wfm.curation.exchange.cosmos_import import import_cosmos
from wfm.curation.select.threshold_report import columns, limits, read
from wfm.data.energon import FOLDER
from wfm.data.exclusions import exclusions_of
from wfm.data.mixture import mixture_of
from wfm.data.shards import iter_samples
from wfm.errors import ConfigError, DataError

SHAPES = {"square": (64, 64), "tall": (64, 112), "wide": (128, 64), "strip": (192, 64), "square too": (64, 64)}
BINS = {
    "square": "resolution_lt_720_aspect_ratio_1_1_duration_0_5",
    "tall": "resolution_lt_720_aspect_ratio_9_16_duration_0_5",
    "wide": "resolution_lt_720_aspect_ratio_16_9_duration_0_5",
    "strip": "overflow",
}
KINDS = {"categories": {"bright": ["A bright video."], "dark": ["A very dark video."]}, "evenness": 0.0}


def film(path: Path, seed: int, width: int, height: int, *, speed: int = 2, crf: int = 18) -> None:
    """A window that glides over a random picture, so many pixels a frame; every second film is dark."""
    import av
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (8, 24, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width + 96, height), Image.Resampling.BICUBIC))
    light = 0.25 if seed % 2 else 1.0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        for t in range(48):
            pixels = np.ascontiguousarray((light * picture[:, speed * t : speed * t + width]).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("described") / "store", {"fsync": False})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for seed, (name, (width, height)) in enumerate(SHAPES.items()):
        film(folder / f"{name}.mp4", seed, width, height)
    head = {"weight": np.random.default_rng(0).standard_normal((1, 256)).astype(np.float32), "bias": np.array([5.0])}
    save_file({name: value.astype(np.float32) for name, value in head.items()}, folder / "head.safetensors")
    return folder


@pytest.fixture(scope="module")
def made(stage_runner: Callable[..., Any], store: Store, folder: Path) -> dict[str, Artifact]:
    """Every artifact by kind; `run` makes another."""
    run = stage_runner(store, folder / "scratch")
    done: dict[str, Artifact] = {"videos": run("ingest_videos", {"videos": str(folder)})}
    done["clips"] = run("split_clips", videos=done["videos"])
    done["scores"] = run("score_clips", {"measures": True, "embed": {}}, clips=done["clips"])
    done["captions"] = run("caption_clips", {"source": "measured"}, clips=done["clips"])
    head = {"head": str(folder / "head.safetensors"), "sha256": digest(folder / "head.safetensors")}
    done["embeddings"] = run("embed_clips", {"aesthetic": head}, clips=done["clips"], scores=done["scores"])
    for kind, name, config, inputs in (
        ("duplicates", "dedup_clips", {}, ("clips", "scores", "embeddings")),
        ("selection", "select_clips", {"minimum_sharpness": None, "minimum_aesthetic": -100.0},
         ("clips", "scores", "duplicates", "embeddings")),
        ("clusters", "cluster_clips", {"clusters": 2}, ("selection", "captions")),
        ("categories", "classify_clips", KINDS, ("selection", "captions")),
        ("dataset", "write_shards", {}, ("videos", "clips", "scores", "captions", "selection", "embeddings", "clusters",
                                         "categories")),
    ):  # fmt: skip
        done[kind] = run(name, config, **{of: done[of] for of in inputs})
    return done


def test_what_is_known_of_a_clip_is_in_its_row(made: dict[str, Artifact], store: Store) -> None:
    dataset = made["dataset"]
    rows = {Path(row["source"]).stem: row for row in dataset.table("clips").to_pylist()}
    assert set(rows) == set(SHAPES)
    assert all(row["kept"] for row in rows.values())
    for number, (name, row) in enumerate(rows.items()):
        assert row["shard"].split("/")[2] == BINS.get(name, BINS["square"]), name
        assert row["flow"] > 0
        assert row["video_type"] is not None
        assert row["aesthetic"] is not None
        assert row["nsfw"] is None, f"nobody asked for it ({number})"
        dark = list(SHAPES).index(name) % 2 == 1
        assert row["category"] == ("dark" if dark else "bright"), row["caption"]
        assert row["cluster_name"]
    assert len({row["cluster"] for row in rows.values()}) == 2
    judged = {row["clip_id"]: row["aesthetic"] for row in made["embeddings"].table("aesthetic").to_pylist()}
    assert {row["clip_id"]: row["aesthetic"] for row in rows.values()} == judged
    card = json.load(dataset.open("card.json"))
    assert card["categories"] == {"bright": 3, "dark": 2}
    assert sum(card["clusters"].values()) == 5
    assert {"aesthetic", "flow", "motion"} <= set(card["scores_kept"])
    assert "| dark | 2 |" in dataset.fetch("README.md").read_text()
    fewer, _ = exclude_in_store(store, dataset, [next(iter(judged))])
    for key in (dataset.key, fewer.key):
        scored, _ = read(store, key)
        assert set(columns(scored)) >= {"aesthetic", "flow"}


def test_weights_are_of_the_clips_to_train_on_and_change_no_shard(
    made: dict[str, Artifact], store: Store, folder: Path, stage_runner: Callable[..., Any]
) -> None:
    mixed = mixture_of(made["categories"].table("mixture"), "mixture")
    train = [row["clip_id"] for row in made["dataset"].table("clips").to_pylist() if row["split"] == "train"]
    wanted = {
        name: 1 / len({mixed.categories[clip] for clip in train}) for name in {mixed.categories[c] for c in train}
    }
    assert mixed.shares([f"{clip}:0" for clip in train]) == pytest.approx(wanted)
    run = stage_runner(store, folder / "scratch")
    inputs = {name: made[name] for name in ("selection", "captions")}
    other = run("classify_clips", {**KINDS, "evenness": 1.0}, **inputs)
    assert other.key != made["categories"].key
    assert other.manifest.extra["empty"] == []
    assert other.manifest.extra["mixture"]["weights"] == pytest.approx(dict.fromkeys(wanted, 1.0)), (
        "as the corpus has it"
    )
    more = {**KINDS, "categories": {**KINDS["categories"], "swans": ["Swans on a lake."]}, "least_margin": 0.02}
    assert "swans" in run("classify_clips", more, **inputs).manifest.extra["empty"]
    with pytest.raises(ConfigError, match="shares wants swans, of which there is no clip"):
        run("classify_clips", {**more, "shares": {"swans": 0.5}}, **inputs)
    inputs = {
        name: made[name] for name in ("videos", "clips", "scores", "captions", "selection", "embeddings", "clusters")
    }
    again = run("write_shards", categories=other, **inputs)
    assert [part.key for part in again.parts] == [part.key for part in made["dataset"].parts]


def test_a_head_belongs_to_its_hash_and_a_limit_to_a_head(
    made: dict[str, Artifact], store: Store, folder: Path, stage_runner: Callable[..., Any]
) -> None:
    run = stage_runner(store, folder / "scratch")
    head = {"head": str(folder / "head.safetensors"), "sha256": "0" * 64}
    with pytest.raises(ConfigError, match=r"aesthetic\.sha256 = '0000"):
        run("embed_clips", {"aesthetic": head}, clips=made["clips"])
    plain = run("embed_clips", clips=made["clips"])
    inputs = {name: made[name] for name in ("clips", "scores", "duplicates")}
    with pytest.raises(ConfigError, match=r"embed_clips\.aesthetic\.head"):
        run("select_clips", {"minimum_aesthetic": 4.0}, **inputs, embeddings=plain)
    limit = sorted(row["aesthetic"] for row in made["embeddings"].table("aesthetic").to_pylist())[2]
    config = {"minimum_sharpness": None, "minimum_aesthetic": limit}
    chosen = run("select_clips", config, **inputs, embeddings=made["embeddings"])
    assert chosen.manifest.skipped == {"low_aesthetic": 2}
    from wfm.curation.select.select import SelectConfig

    assert limits(SelectConfig.parse(config))["aesthetic"] == limit


def test_trainers_open_it_as_it_is(made: dict[str, Artifact], store: Store, tmp_path: Path) -> None:
    """Energon and webdataset: every sample of every bin with its own bytes; and without what is excluded."""
    import webdataset

    root = tmp_path / "pulled"
    store.pull(made["dataset"].key, root, "all")
    rows = {row["clip_id"]: row for row in pq.read_table(root / "clips.parquet").to_pylist()}
    shards = sorted((root / "shards").rglob("*.tar"))
    assert len({shard.parent.name for shard in shards}) == 4, "four bins, one of them overflow"
    written = {sample.key: sample.members for shard in shards for sample in iter_samples(shard)}
    assert set(written) == set(rows)
    for clip, members in written.items():
        source = made["clips"].part(rows[clip]["video_id"][:2]).fetch(f"clips/{clip}.mp4")
        assert members["mp4"] == source.read_bytes()
        assert json.loads(members["json"])["scores"]["aesthetic"] == rows[clip]["aesthetic"]
        assert np.load(io.BytesIO(members["emb.npy"])).dtype == np.float16

    def by_webdataset() -> dict[str, dict[str, bytes]]:
        gone = exclusions_of(root)
        urls = [str(path) for path in shards if not gone.leaves_out(path.relative_to(root).as_posix())]
        samples = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
        return {s["__key__"]: _members(s) for s in samples.select(lambda sample: sample["__key__"] not in gone.keys)}

    def by_energon(clips: Iterable[str]) -> dict[str, dict[str, bytes]]:
        splits = {rows[clip]["split"] for clip in clips}
        return {key: value for split in splits for key, value in opened(root, split).items()}

    assert by_webdataset() == by_energon(written) == written
    whole = next(row["shard"] for row in rows.values() if row["shard"].split("/")[2] == "overflow")
    single = next(clip for clip, row in rows.items() if row["split"] == "train" and row["shard"] != whole)
    exclude_in_folder(root, [single], [whole])
    left = {clip: value for clip, value in written.items() if clip != single and rows[clip]["shard"] != whole}
    assert len(left) == 3
    assert by_webdataset() == by_energon(left) == left
    assert json.loads((root / "card.json").read_text())["excluded"] == 2
    assert "**Excluded since:** 2 clips or shards" in (root / "README.md").read_text().split("\n")[1]
    exclude_in_folder(root, [single], [whole], undo=True)
    assert "Excluded" not in (root / "README.md").read_text()
    assert by_energon(written) == written
    assert not list((root / FOLDER).glob("*.tmp"))


def test_the_readme_tells_energon_how_and_is_right(made: dict[str, Artifact], store: Store, tmp_path: Path) -> None:
    """The cooker of the page, run as a trainer would: before there was none, and Energon refused without one."""
    root = tmp_path / "pulled"
    store.pull(made["dataset"].key, root, "all")
    code = (root / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert code.count("    ...\n") == 1
    split = "get_loader(dataset):  # without end"
    names: dict[str, Any] = {"__name__": "page"}
    code = code.replace(split, "[next(iter(get_loader(dataset)))]:").replace("    ...\n", "    seen = batch\n")
    exec(compile(code.replace('"."', repr(str(root))), "README.md", "exec"), names)
    rows = {row["clip_id"]: row for row in made["dataset"].table("clips").to_pylist()}
    assert names["seen"]
    for clip in names["seen"]:
        row = rows[clip.facts["clip_id"]]
        assert (clip.caption, row["split"]) == (row["caption"], "train")
        source = made["clips"].part(row["video_id"][:2]).fetch(f"clips/{row['clip_id']}.mp4")
        assert clip.video == source.read_bytes()


def test_every_drop_is_told_with_its_figure_limit_source_and_time(
    made: dict[str, Artifact], store: Store, folder: Path, stage_runner: Callable[..., Any]
) -> None:
    run = stage_runner(store, folder / "scratch")
    inputs = {name: made[name] for name in ("clips", "scores", "duplicates", "embeddings")}

    def third(table: str, column: str) -> float:
        return sorted(row[column] for row in made["scores"].table(table).to_pylist())[2]

    contrast, flow = third("scores", "contrast"), third("measures", "flow")
    off = {"minimum_sharpness": None, "minimum_contrast": None}
    for chosen_limits, reason, measure, limit, dropped in (
        ({**off, "minimum_contrast": contrast}, "low_contrast", "contrast", contrast, 2),
        ({**off, "measured": {"minimum_flow": flow}}, "low_flow", "flow", flow, 2),
    ):
        chosen = run("select_clips", chosen_limits, **inputs)
        told = [row for row in left_out(store, chosen.key) if row["stage"] == "select_clips"]
        assert len(told) == dropped, reason  # told as before: with neither figure nor place
        clips = {row["clip_id"]: row for row in made["clips"].table("clips").to_pylist()}
        for row in told:
            assert (row["reason"], row["measure"], row["limit"]) == (reason, measure, limit)
            assert row["score"] < limit
            clip = clips[row["clip_id"]]
            assert [row[of] for of in ("source", "start_seconds", "end_seconds")] == [
                clip[of] for of in ("source", "start_seconds", "end_seconds")
            ]


def _members(sample: dict[str, Any]) -> dict[str, bytes]:
    return {name: value for name, value in sample.items() if not name.startswith("__")}


def test_all_of_it_goes_out_and_comes_in_again(made: dict[str, Artifact], tmp_path: Path) -> None:
    export_cosmos(made["dataset"], tmp_path / "out")
    again = import_cosmos(Store.open(tmp_path / "other"), tmp_path / "out")
    rows = [sorted(of.table("clips").to_pylist(), key=lambda row: row["clip_id"]) for of in (made["dataset"], again)]
    assert rows[0] == rows[1]
    with pytest.raises(DataError, match="made without scores"):
        read(Store.open(tmp_path / "other"), again.key)


def test_the_commands_show_what_the_stages_made(made: dict[str, Artifact], store: Store) -> None:
    def ask(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--store", store.url])
        assert done.exception is None, done.output
        return done.output

    fewer, _ = exclude_in_store(store, made["dataset"], [made["dataset"].table("clips").column("clip_id")[0].as_py()])
    for dataset, clips in ((made["dataset"], 5), (fewer, 4)):
        for command, kind in (("clusters", "cluster_clips"), ("taxonomy", "classify_clips")):
            shown = ask(command, "--dataset", dataset.key)
            assert f"as {kind} made them" in shown
            numbers = [int(line.split()[-2]) for line in shown.splitlines()[2:] if line.strip()]
            assert sum(numbers) == clips, shown
    assert "by captions" in ask("clusters", "--dataset", fewer.key, "--clusters", "2"), (
        "asked for another number: made anew"
    )


def test_a_clip_judges_pictures_by_words(
    made: dict[str, Artifact], store: Store, folder: Path, stage_runner: Callable[..., Any], whole_clip: Path
) -> None:
    """Its vectors are float16 in lists of its own width; clusters and categories go by looks."""
    run = stage_runner(store, folder / "scratch")
    model = {"model": "clip", "weights": str(whole_clip), "weights_sha256": digest(whole_clip), "frames": 2, "side": 32}
    embeddings = run("embed_clips", model, clips=made["clips"])
    for of, width in ((embeddings, 24), (made["embeddings"], 256)):
        for part in of.iterate_parts():
            schema = pq.read_schema(of.part(part.name).fetch("embeddings.parquet"))
            assert schema.field("embedding").type == pa.list_(pa.float16(), width)
    inputs = {"selection": made["selection"], "captions": made["captions"], "embeddings": embeddings}
    clusters = run("cluster_clips", {"by": "looks", "clusters": 2}, **inputs)
    assert len(clusters.table("clusters")) == 5
    categories = run("classify_clips", {"by": "looks", **KINDS}, **inputs)
    assert len(categories.table("categories")) == 5
    with pytest.raises(ConfigError, match="reads no words"):
        run("classify_clips", {"by": "looks", **KINDS}, **{**inputs, "embeddings": made["embeddings"]})
    wrong = {**model, "weights_sha256": "0" * 64}
    with pytest.raises(ConfigError, match="weights_sha256"):
        run("embed_clips", wrong, clips=made["clips"])
