"""``wfm search``, ``wfm clusters``, ``wfm taxonomy`` over a small store with real shards and the real sentence encoder."""

import hashlib
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipelines.commands.cli import app
from wfm.artifacts import Artifact, Store
from wfm.curation.rows import Embedding
from wfm.data.mixture import read_mixture
from wfm.data.shards import ShardWriter
from wfm.errors import ConfigError, DataError, InputError

CAPTIONS = (
    "A red ball rolls over the floor.",
    "A large red sphere that rolls on a tiled floor.",
    "A blue box slides while the camera is static.",
    "A blue cube at rest on a grey table.",
    "Two dogs play in deep <b>snow</b>.",
    "A dog runs through the snow.",
    "",
    "A red ball that was refused.",
)
KEPT = [True] * 7 + [False]
IDS = [hashlib.sha256(bytes([k])).hexdigest() for k in range(8)]
VIDEOS = [f"the bytes of clip {k}".encode() for k in range(8)]
PARTS = {"0a": range(4), "f3": range(4, 8)}


def looks(row: int) -> list[float]:
    """Clips 0 and 5 look alike; clip 3 is flat."""
    x = np.random.default_rng(0 if row == 5 else row).standard_normal(256)
    x += 0.01 * np.random.default_rng(100 + row).standard_normal(256)
    return [0.0] * 256 if row == 3 else (x / np.linalg.norm(x)).astype(np.float16).tolist()


def embeddings(store: Store, *, clip_sha256: str = "") -> Artifact:
    entries = []
    for part, rows in PARTS.items():
        with store.part_attempt(hashlib.sha256(f"e{part}{clip_sha256}".encode()).hexdigest()) as attempt:
            made = [
                Embedding(
                    clip_id=IDS[k], clip_sha256=clip_sha256 or hashlib.sha256(VIDEOS[k]).hexdigest(), session_id="s",
                    model="dct3d-v1", flat=k == 3, embedding=looks(k),
                )
                for k in rows
            ]  # fmt: skip
            pq.write_table(Embedding.to_table(made), attempt.path / "embeddings.parquet")
            entries.append(attempt.commit(stage="embed_clips", kind="part").entry(part))
    with store.attempt(hashlib.sha256(f"embeddings{clip_sha256}".encode()).hexdigest()) as attempt:
        config = {"model": "dct3d-v1"}
        return attempt.commit(stage="embed_clips", kind="embeddings", parts=entries, config=config)


def dataset(store: Store, inputs: dict[str, str], name: str) -> Artifact:
    entries = []
    for part, rows in PARTS.items():
        with store.part_attempt(hashlib.sha256(f"{name}{part}".encode()).hexdigest()) as attempt:
            with ShardWriter(attempt.path / "shards/train", part) as writer:
                for k in rows:
                    if KEPT[k]:
                        writer.write(IDS[k], {"mp4": VIDEOS[k], "json": b"{}"})
            table: dict[str, list[Any]] = {
                "clip_id": [IDS[k] for k in rows],
                "clip_sha256": [hashlib.sha256(VIDEOS[k]).hexdigest() for k in rows],
                "caption": [CAPTIONS[k] for k in rows],
                "source": [f"/videos/{k}.mp4" for k in rows],
                "start_seconds": [0.0 for _ in rows],
                "end_seconds": [2.0 for _ in rows],
                "width": [64 for _ in rows],
                "height": [48 for _ in rows],
                "fps": [24.0 for _ in rows],
                "split": ["train" if KEPT[k] else "" for k in rows],
                "shard": [f"shards/train/{part}-00000.tar" if KEPT[k] else "" for k in rows],
                "kept": [KEPT[k] for k in rows],
            }
            pq.write_table(pa.table(table), attempt.path / "clips.parquet")
            entries.append(attempt.commit(stage="write_shards", kind="part").entry(part))
    with store.attempt(hashlib.sha256(name.encode()).hexdigest()) as attempt:
        made = attempt.commit(stage="write_shards", kind="dataset", inputs=inputs, parts=entries)
    store.promote("dataset", name, made.key)
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    place = Store.open(tmp_path_factory.mktemp("searched") / "store", {"fsync": False})
    dataset(place, {"embeddings": embeddings(place).key}, "curated")
    dataset(place, {}, "bare")
    dataset(place, {"embeddings": embeddings(place, clip_sha256="0" * 64).key}, "mixed")
    return place


def ask(store: Store, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--store", store.url])
    if done.exception is not None:
        raise done.exception
    return done.output


def found(store: Store, *arguments: str) -> list[int]:
    return [IDS.index(hit["clip_id"]) for hit in json.loads(ask(store, "search", *arguments, "--json"))["hits"]]


def test_words_find_what_they_say(store: Store) -> None:
    assert set(found(store, "red ball rolling", "--top", "2")) == {0, 1}
    assert set(found(store, "puppies in winter", "--top", "2")) == {4, 5}
    everything = found(store, "a blue cube", "--top", "99")
    assert everything[0] == 3
    assert sorted(everything) == [0, 1, 2, 3, 4, 5], "not the clip without a caption, nor the one that was refused"
    assert found(store, "a blue cube", "--top", "99", "--exact") == everything
    assert "6 clips of curated" in ask(store, "search", "a blue cube")
    assert "1 could not be compared" in ask(store, "search", "a blue cube")


def test_an_example_finds_its_like(store: Store) -> None:
    assert found(store, "--clip", IDS[0][:10], "--top", "1") == [5]
    assert found(store, "--clip", IDS[0], "--by", "captions", "--top", "1") == [1]
    assert found(store, "--clip", IDS[0], "--top", "99").count(0) == 0, "never itself"


def test_the_page_holds_the_clips_bytes_and_escapes_words(store: Store, tmp_path: Path) -> None:
    page = tmp_path / "made/hits.html"
    ask(store, "search", "dogs <script>alert(1)</script> snow", "--top", "2", "--page", str(page))
    text = page.read_text()
    played = [b64decode(data) for data in re.findall(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", text)]
    assert sorted(played) == sorted([VIDEOS[4], VIDEOS[5]])
    assert "<script" not in text
    assert "<b>snow" not in text
    assert "&lt;b&gt;snow" in text
    assert not re.search(r"(src|href)='(?!data:)", text), "nothing is loaded from elsewhere"


def test_clusters_and_taxonomy_write_tables(store: Store, tmp_path: Path) -> None:
    shown = ask(store, "clusters", "--clusters", "2", "--out", str(tmp_path))
    assert "2 clusters of 6 clips" in shown
    rows = pq.read_table(tmp_path / "clusters.parquet").to_pylist()
    cluster = {IDS.index(row["clip_id"]): row["cluster"] for row in rows}
    assert [cluster[k] == cluster[4] for k in range(6)] == [False] * 4 + [True] * 2, "dogs in snow, and the rest"
    (tmp_path / "t.json").write_text(
        json.dumps({
            "categories": {"animals": ["An animal, such as a dog."], "objects": ["A geometric object: a ball, a box."]},
            "shares": {"animals": 0.5},
        })
    )  # fmt: skip
    assert "animals" in ask(store, "taxonomy", str(tmp_path / "t.json"), "--out", str(tmp_path))
    found = read_mixture(tmp_path / "mixture.parquet")
    assert found.categories[IDS[6]] == "other", "nothing was said of it; it may be drawn all the same"
    assert set(found.weights) == {IDS[k] for k in range(7)}
    assert found.shares([f"{clip}:0" for clip in IDS[:7]])["animals"] == pytest.approx(0.5)
    assert found.weights[IDS[4]] == found.weights[IDS[5]] == pytest.approx(0.5 * 7 / 2)
    kinds = pq.read_table(tmp_path / "categories.parquet").to_pylist()
    assert {IDS.index(row["clip_id"]) for row in kinds if row["category"] == "animals"} == {4, 5}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("search",), InputError, "one of the two"),
        (("search", "red", "--clip", "abcd"), InputError, "one of the two"),
        (("search", "red", "--dataset", "nothing"), InputError, "dataset/curated"),
        (("search", "--clip", IDS[0], "--by", "sound"), InputError, "looks"),
        (("search", "--clip", "zzzz"), InputError, "no kept clip"),
        (("search", "--clip", "a"), InputError, "first 4"),
        (("search", "--clip", IDS[7]), InputError, "no kept clip"),
        (("search", "--clip", IDS[3]), InputError, "no kept clip"),
        (("search", "--clip", IDS[0], "--dataset", "bare"), InputError, "without embeddings"),
        (("search", "--clip", IDS[0], "--dataset", "mixed"), DataError, "other bytes"),
        (("search", "red", "--text-encoder", "/nowhere"), ConfigError, "/nowhere"),
        (("clusters", "--clusters", "7"), ConfigError, "clusters = 7"),
        (("clusters", "--by", "smell"), InputError, "captions"),
        (("taxonomy", "/nowhere.json"), InputError, "/nowhere"),
        (("search", "red", "--by", "looks"), ConfigError, "'dct3d-v1', which reads no words"),
        (("taxonomy", "--by", "looks"), ConfigError, "reads no words"),
    ],
)
def test_wrong_questions_are_refused(
    store: Store, arguments: tuple[str, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ask(store, *arguments)


def test_another_kind_is_no_dataset(store: Store) -> None:
    with pytest.raises(InputError, match="of kind 'embeddings'"):
        ask(store, "search", "red", "--dataset", embeddings(store).key)
