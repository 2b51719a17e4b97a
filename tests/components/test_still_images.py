"""Still images beside videos through every curation stage, in this process, to a data set that trainers open."""

import hashlib
import io
import json
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

import wfm
from tests.components.conftest import StageRunner, runner_of
from tests.components.test_curation_stages import SELECT, encode, world
from tests.wfm.data.test_energon import opened
from wfm.artifacts import Artifact, Store
from wfm.catalogue.dataset_card import dataset_card
from wfm.catalogue.of_dataset import dataset_sheet
from wfm.curation import trial
from wfm.curation.dataset.dataset_readme import ENERGON_WITH_IMAGES
from wfm.curation.exchange.cosmos_export import export_cosmos
from wfm.curation.search.search import SHOWN, Hit, clip_bytes
from wfm.curation.search.search_page import write_page
from wfm.curation.select.select import SelectConfig
from wfm.curation.select.threshold_report import page, read
from wfm.data.images import read_image
from wfm.data.shards import iter_samples
from wfm.data.windows import windows

TIMED = (
    "motion",
    "pan_x",
    "motion_source",
    "static_share",
    "frozen_share",
    "text_score",
    "flow",
    "video_type",
    "jumps",
)
FRAMED = ("black_share", "sharpness", "brightness", "contrast", "blockiness", "border_share", "colourfulness", "shades")


def scene(seed: int, height: int = 120, width: int = 160) -> Image.Image:
    rng = np.random.default_rng(500 + seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **how: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", **{"quality": 92, **how})
    return data.getvalue()


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **how)
    return data.getvalue()


def turned(image: Image.Image, number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return jpeg(image, exif=exif)


def good(folder: Path) -> None:
    """Every kind that is taken, each of a scene of its own; a copy of one at another quality and size, under a wrong name."""
    (folder / "plain.jpg").write_bytes(jpeg(scene(0)))
    (folder / "plain.png").write_bytes(saved(scene(1), "PNG"))
    (folder / "plain.webp").write_bytes(saved(scene(2), "WEBP", quality=95))
    (folder / "copy.mp4").write_bytes(jpeg(scene(0).resize((120, 90)), quality=70))  # a jpg by its bytes
    (folder / "noending").write_bytes(saved(scene(3), "PNG"))
    (folder / "turned.jpg").write_bytes(turned(scene(4), 6))
    (folder / "cmyk.jpg").write_bytes(jpeg(scene(5).convert("CMYK")))
    (folder / "grey16.png").write_bytes(
        saved(Image.fromarray(np.asarray(scene(6).convert("L")).astype(np.uint16) * 257), "PNG")
    )
    (folder / "palette.png").write_bytes(saved(scene(7).quantize(64), "PNG"))
    clear = scene(8).convert("RGBA")
    clear.paste((255, 255, 255, 0), (0, 0, 80, 120))
    (folder / "alpha.png").write_bytes(saved(clear, "PNG"))
    (folder / "alpha.webp").write_bytes(saved(clear.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "WEBP", lossless=True))
    (folder / "grey.jpg").write_bytes(jpeg(scene(9).convert("L")))
    (folder / "plain.attributes.json").write_text(
        json.dumps({"session_id": "walk", "shots": [{"start_seconds": 0, "end_seconds": 1, "background": "red brick"}]})
    )


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb() -> bytes:
    """A png of a few hundred bytes that claims 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def webp_bomb() -> bytes:
    """The same as webp, whose library makes room as it opens."""
    data = bytearray(
        saved(scene(0), "WEBP", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    )
    assert data[12:16] == b"VP8X"
    data[24:30] = (16_382).to_bytes(3, "little") * 2
    return bytes(data)


def lying() -> bytes:
    """A jpg whose header says four times the height that it holds rows for."""
    data = bytearray(jpeg(scene(0)))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 2] = struct.pack(">H", 480)
    return bytes(data)


BAD: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty_file"),
    "page.jpg": (b"<!doctype html><html><body>404</body></html>", "not_an_image"),
    "heic.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "not_an_image"),
    "head.jpg": (b"\xff\xd8\xff\xe0", "decode_error"),
    "half.jpg": (jpeg(scene(0))[:-2000], "truncated"),
    "half.png": (saved(scene(0), "PNG")[:-3000], "truncated"),
    "half.webp": (saved(scene(0), "WEBP")[:-40], "truncated"),
    "lies.jpg": (lying(), "truncated"),
    "bomb.png": (bomb(), "too_large"),
    "bomb.webp": (webp_bomb(), "too_large"),
    "spacer.png": (saved(Image.new("RGB", (1, 1)), "PNG"), "too_small"),
    "moves.webp": (saved(scene(0), "WEBP", save_all=True, append_images=[scene(1)]), "animated"),
    "moves.png": (saved(scene(0), "PNG", save_all=True, append_images=[scene(1)]), "animated"),
    "moves.jpg": (
        saved(scene(0), "GIF", save_all=True, append_images=[scene(1)]),
        "too_short",
    ),  # a video of two frames
    "broken.png": (saved(scene(0), "PNG")[:60] + bytes(500) + saved(scene(0), "PNG")[560:], "decode_error"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    for seed in range(2):
        encode(folder / f"film {seed}.mp4", world(seed, shots=1))
    good(folder)
    shutil.copy(folder / "plain.png", folder / "again.png")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("store"))


def curate(run: StageRunner, folder: Path) -> dict[str, Artifact]:
    done = {"videos": run("ingest_videos", {"videos": str(folder)})}
    done["clips"] = run("split_clips", videos=done["videos"])
    done["scores"] = run("score_clips", {"measures": True}, clips=done["clips"])
    done["captions"] = run("caption_clips", clips=done["clips"])
    done["embeddings"] = run("embed_clips", {"signatures": True}, clips=done["clips"])
    limits = {
        "minimum_flow": 0.001, "maximum_longest_freeze": 100.0, "maximum_border_share": 0.9, "drop_video_types": ["still"]
    }  # fmt: skip
    select = {**SELECT, "minimum_motion": 0.001, "measured": limits}
    for kind, name, config, inputs in (
        ("duplicates", "dedup_clips", {"look": True}, ("clips", "scores", "embeddings")),
        ("selection", "select_clips", select, ("clips", "scores", "duplicates")),
        ("dataset", "write_shards", {}, ("videos", "clips", "scores", "captions", "selection", "embeddings")),
    ):
        done[kind] = run(name, config, **{of: done[of] for of in inputs})
    return done


@pytest.fixture(scope="module")
def curated(store: Store, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return curate(runner_of(store, tmp_path_factory.mktemp("scratch")), folder)


@pytest.fixture(scope="module")
def pulled(store: Store, curated: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pulled") / "out"
    store.pull(curated["dataset"].key, out, what="all")
    return out


@pytest.fixture(scope="module")
def rows(curated: dict[str, Artifact]) -> dict[str, dict[str, Any]]:
    """Name of the file -> the row of its clip."""
    return {Path(row["source"]).name: row for row in curated["dataset"].table("clips").to_pylist()}


def test_every_kind_of_image_reaches_the_data_set(
    curated: dict[str, Artifact], rows: dict[str, dict[str, Any]]
) -> None:
    images = {name: row for name, row in rows.items() if "film" not in name}
    assert len(images) == 12
    assert {name: row["reason"] for name, row in images.items() if not row["kept"]} == {"copy.mp4": "duplicate"}
    assert rows["copy.mp4"]["duplicate_of"] == rows["plain.jpg"]["clip_id"]
    for row in images.values():
        assert (row["num_frames"], row["fps"], row["start_seconds"], row["end_seconds"]) == (1, 0, 0, 0)
        assert [name for name in TIMED if row[name] is not None] == []
        assert [name for name in FRAMED if row[name] is None] == []
        assert row["caption"]
    assert rows["plain.jpg"]["session_id"] == rows["plain.png"]["session_id"] == "walk"
    assert rows["plain.jpg"]["caption_source"] == "attributes"
    assert "brick" in rows["plain.jpg"]["caption"]
    assert rows["grey.jpg"]["caption"].startswith("A")
    assert "picture, mostly" in rows["grey.jpg"]["caption"]
    assert all(rows[f"film {seed}.mp4"]["motion"] > 0 for seed in range(2))
    files = {Path(r["source"]).name: r for r in curated["dataset"].table("videos").to_pylist()}
    assert files["again.png"]["status"] == "duplicate"
    assert files["copy.mp4"]["codec"] == "mjpeg"
    assert files["noending"]["codec"] == "png"
    assert files["turned.jpg"]["rotation_degrees"] == 90
    assert files["grey16.png"]["pixel_format"] == "gray16"
    assert curated["clips"].manifest.counts["images"] == 12


def test_bytes_are_kept_where_they_will_do_and_pictures_are_upright_plain_and_opaque(
    folder: Path, rows: dict[str, dict[str, Any]], pulled: Path
) -> None:
    samples = {s.key: s.members for path in pulled.rglob("*.tar") for s in iter_samples(path)}
    of = {name: samples[row["clip_id"]] for name, row in rows.items() if row["kept"]}
    for name, kind in (
        ("plain.jpg", "jpg"),
        ("plain.png", "png"),
        ("plain.webp", "webp"),
        ("noending", "png"),
        ("grey.jpg", "jpg"),
    ):
        assert of[name][kind] == (folder / name).read_bytes()
        assert rows[name]["transcode"] == "copy"
        assert rows[name]["clip_sha256"] == rows[name]["video_id"]
    for name in ("turned.jpg", "cmyk.jpg", "grey16.png", "palette.png", "alpha.png", "alpha.webp"):
        assert rows[name]["transcode"] == "encode"
    assert "jpg" in of["turned.jpg"]
    assert "png" in of["alpha.webp"]
    upright = np.asarray(scene(4).transpose(Image.Transpose.ROTATE_270))
    assert (rows["turned.jpg"]["height"], rows["turned.jpg"]["width"]) == upright.shape[:2] == (160, 120)
    assert np.abs(read_image(of["turned.jpg"]["jpg"]).astype(int) - upright).mean() < 3
    grey = np.asarray(scene(6).convert("L"))
    assert np.array_equal(
        read_image(of["grey16.png"]["png"])[..., 0], grey
    )  # Pillow's own conversion would clip at 255
    assert read_image(of["alpha.png"]["png"])[:, :80].max() == 0  # the ground
    assert np.array_equal(read_image(of["alpha.png"]["png"])[:, 80:], np.asarray(scene(8))[:, 80:])
    assert np.abs(read_image(of["palette.png"]["png"]).astype(int) - np.asarray(scene(7))).mean() < 20
    for members in of.values():
        facts = json.loads(members["json"])
        if "mp4" in members:
            assert "kind" not in facts
            continue
        assert facts["kind"] == "image"
        (kind,) = {"jpg", "png", "webp"} & set(members)
        assert set(members) == {kind, "json", "txt", "emb.npy"}
        with Image.open(io.BytesIO(members[kind])) as image:
            assert image.mode in ("L", "RGB")
            assert image.size == (facts["width"], facts["height"])
            assert image.getexif().get(0x0112, 1) == 1
        assert hashlib.sha256(members[kind]).hexdigest() == facts["clip_sha256"]


def test_trainers_open_it(curated: dict[str, Artifact], rows: dict[str, dict[str, Any]], pulled: Path) -> None:
    import webdataset

    kept = {row["clip_id"]: row for row in rows.values() if row["kept"]}
    ours = {s.key: s.members for path in pulled.rglob("*.tar") for s in iter_samples(path)}
    assert set(ours) == set(kept)
    energon: dict[str, dict[str, bytes]] = {}
    for split in ("train", "val", "test"):
        energon |= opened(pulled, split)
    assert energon == ours
    shards = sorted(str(path) for path in pulled.rglob("*.tar"))
    theirs = {
        sample["__key__"]: {name: value for name, value in sample.items() if not name.startswith("__")}
        for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
    }
    assert theirs == ours
    for path in shards:  # no shard holds both
        assert len({"mp4" in s.members for s in iter_samples(path)}) == 1
        assert ("/image_" in path) == ("mp4" not in next(iter_samples(path)).members)
    seen = 0
    for split in ("train", "val", "test"):
        for sample in wfm.dataset(str(pulled), split=split):
            row = kept[sample.clip_id]
            assert sample.video.shape == (row["num_frames"], row["height"], row["width"], 3)
            assert sample.is_image == (row["fps"] == 0)
            assert sample.frames((24, 32)).shape == (row["num_frames"], 24, 32, 3)
            assert "still image" in repr(sample) or not sample.is_image
            seen += 1
    assert seen == len(kept)


def test_cards_count_images_apart_and_the_readme_reads_both_kinds_with_energon(
    store: Store, curated: dict[str, Artifact], pulled: Path, rows: dict[str, dict[str, Any]], monkeypatch
) -> None:
    page = (pulled / "README.md").read_text()
    card = json.loads((pulled / "card.json").read_text())
    assert card["images"] == {"files": 13, "kept": 11, "total": 12}
    assert sum(split.get("images", 0) for split in card["splits"].values()) == 11
    films = sum(row["end_seconds"] for row in rows.values() if row["fps"])
    assert sum(split["seconds"] for split in card["splits"].values()) == pytest.approx(films)
    assert "from 13 videos and images. Of 15 files" in page
    sheet = dataset_sheet(store, curated["dataset"])
    assert sheet.images == 11
    assert "11 of these are still images" in dataset_card(sheet)
    assert "11 of the clips below are still images" in page
    assert "| split | clips | images |" in page
    code = page.split("```python\n")[1].split("```")[0]
    assert code.strip() == ENERGON_WITH_IMAGES.strip()
    monkeypatch.chdir(pulled)
    kinds, space = set(), {"__name__": "readme"}
    once = code.replace("    ...", "    take(batch)\n    break")
    exec(once, space | {"take": lambda batch: kinds.update(sample.kind for sample in batch)})
    assert kinds <= {"image", "video"}
    assert "image" in kinds


def test_windows_of_one_frame_are_taken_of_both(curated: dict[str, Artifact], rows: dict[str, dict[str, Any]]) -> None:
    found = list(windows(curated["dataset"], "train", num_frames=1, stride_frames=1, size=(16, 24)))
    kept = {row["clip_id"]: row for row in rows.values() if row["split"] == "train"}
    assert len(found) == sum(row["num_frames"] for row in kept.values())
    assert all(window.frames.shape == (1, 16, 24, 3) for window in found)
    assert all(window.start_seconds == 0 for window in found if window.fps == 0)
    longer = windows(curated["dataset"], "train", num_frames=5, stride_frames=5, size=(16, 24))
    assert all(window.fps > 0 for window in longer)


def test_what_is_made_of_videos_does_not_change_for_images_beside_them(
    folder: Path, curated: dict[str, Artifact], tmp_path: Path
) -> None:
    (tmp_path / "films").mkdir()
    for film in folder.glob("film*"):
        shutil.copy2(film, tmp_path / "films")
    alone = curate(runner_of(Store.open(tmp_path / "store"), tmp_path / "scratch"), tmp_path / "films")
    compared = 0
    for kind in ("clips", "scores", "captions", "embeddings"):
        mixed = {entry.name for entry in curated[kind].parts}
        for name in [entry.name for entry in alone[kind].parts if entry.name in mixed]:
            mine, beside = alone[kind].part(name), curated[kind].part(name)
            if mine.manifest.counts != beside.manifest.counts:
                continue  # an image in the same part
            files = {file.path: file.sha256 for file in mine.files() if kind != "clips" or "clips/" in file.path}
            assert files.items() <= {file.path: file.sha256 for file in beside.files()}.items()
            compared += len(files)
    assert compared >= 10
    card = json.load(alone["dataset"].open("card.json"))
    assert "images" not in card
    assert not any("images" in split for split in card["splits"].values())
    assert "image" not in alone["dataset"].fetch("README.md").read_text()
    schema = alone["scores"].table("scores").schema
    assert not any(schema.field(name).nullable for name in ("motion", "static_share", "text_score"))
    assert curated["scores"].table("scores").schema.field("motion").nullable


def test_whoever_shows_or_hands_on_clips_knows_images(
    store: Store, curated: dict[str, Artifact], rows: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    scored, fetch = read(store, curated["dataset"].key)
    report = page(scored, SelectConfig.parse(SELECT), fetch, "images too")
    assert report.count("data:image/jpeg;base64,") > 20
    assert "cannot" not in report
    hits = []
    for name in ("plain.webp", "film 0.mp4"):
        row = {field: rows[name][field] for field in SHOWN}
        row["shard"] = next(e.path for e in curated["dataset"].files() if e.path.endswith(row["shard"]))
        hits.append(Hit(cosine=0.5, **row))
    write_page(tmp_path / "hits.html", "hits", "", hits, lambda hit: clip_bytes(curated["dataset"], hit))
    found = (tmp_path / "hits.html").read_text()
    assert "data:image/webp;base64," in found
    assert "still image, 160x120" in found
    assert "data:video/mp4;base64," in found
    counts = export_cosmos(curated["dataset"], tmp_path / "theirs")
    assert (counts["exported"], counts["images"]) == (2, 11)


def test_a_suspect_image_is_tried_by_decoding_it(tmp_path: Path) -> None:
    """What is tried must be what is done: a trial that opened it as a video would find nothing, ever."""
    path = tmp_path / "a"
    path.write_bytes(jpeg(scene(0)))
    called = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_be_first_to_go", lambda: None)
        patch.setattr(trial, "_bound_memory", lambda: None)
        patch.setattr("wfm.data.images.read_image", lambda path: called.append(path))
        trial._decode(str(path))
    assert called == [str(path)]


def test_bad_images_are_counted_by_reason(run_stage: StageRunner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, (data, _) in BAD.items():
        (folder / name).write_bytes(data)
    (folder / "fine.jpg").write_bytes(jpeg(scene(0)))
    videos = run_stage("ingest_videos", {"videos": str(folder)})
    found = {row["name"]: row for row in videos.table("videos").to_pylist()}
    assert found.pop("fine.jpg")["status"] == "ok"
    assert {name: row["reason"].partition(":")[0] for name, row in found.items()} == {
        name: code for name, (_, code) in BAD.items()
    }
    assert sum(videos.manifest.skipped.values()) == len(BAD)


def test_archives_and_lists_hold_images_and_a_switch_leaves_them_aside(run_stage: StageRunner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    encode(folder / "film.mp4", world(0, shots=1)[:24])
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("deep/a.jpg", jpeg(scene(0)))
        archive.writestr("deep/notes.txt", "notes")
    with tarfile.open(folder / "b.tar", "w") as archive:
        data = saved(scene(1), "WEBP")
        member = tarfile.TarInfo("0001.webp")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    (folder / "listed.bin").write_bytes(saved(scene(2), "PNG"))
    (tmp_path / "names.txt").write_text(f"in/listed.bin\nin/film.mp4\n{folder}/a.zip!/deep/a.jpg\n")
    everything = run_stage("ingest_videos", {"videos": str(folder)})
    assert {row["name"]: row["num_frames"] for row in everything.table("videos").to_pylist() if row["status"] == "ok"} == {
        "film.mp4": 24, "a.jpg": 1, "0001.webp": 1, "listed.bin": 1,
    }  # fmt: skip
    named = run_stage("ingest_videos", {"videos": str(tmp_path / "names.txt")})
    assert named.manifest.counts["outputs"] == 3
    off = run_stage("ingest_videos", {"videos": str(folder), "images": False})
    assert {row["name"]: row["reason"].partition(":")[0] for row in off.table("videos").to_pylist()} == {
        "film.mp4": "", "listed.bin": "images_off",
    }  # fmt: skip
