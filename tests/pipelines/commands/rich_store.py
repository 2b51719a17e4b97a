"""A store in which the stages of curation themselves made a data set, with a world model that can be run: what commands show of
real clips and weights. It takes some seconds: `small_store` is for all else."""

import hashlib
from pathlib import Path
from typing import Any

from tests.components.conftest import runner_of
from tests.components.test_described_dataset import film
from tests.wfm.catalogue.conftest import make_metrics
from tests.wfm.generation.conftest import make_world, save_bundle
from wfm.artifacts import Artifact, Store


def make_videos(folder: Path) -> None:
    """Three films, one of which stands still; one of them twice, and once more of other bytes; and a text that says that it is
    a film."""
    folder.mkdir(parents=True)
    film(folder / "square.mp4", 0, 64, 64)
    film(folder / "wide.mp4", 2, 64, 64)
    film(folder / "still.mp4", 4, 64, 64, speed=0)
    film(folder / "recoded.mp4", 0, 64, 64, crf=24)
    (folder / "again.mp4").write_bytes((folder / "square.mp4").read_bytes())
    (folder / "notes.mp4").write_text("no film")


def make(store: Store, folder: Path, scratch: Path) -> None:
    """Fill an empty store with the films of a folder, and with a model that was made from them."""
    run = runner_of(store, scratch)
    made = {"videos": run("ingest_videos", {"videos": str(folder)})}
    made["clips"] = run("split_clips", videos=made["videos"])
    made["scores"] = run("score_clips", {"measures": True}, clips=made["clips"])
    made["captions"] = run("caption_clips", {"source": "measured"}, clips=made["clips"])
    made["embeddings"] = run("embed_clips", clips=made["clips"], scores=made["scores"])
    of = ("clips", "scores", "embeddings")
    made["duplicates"] = run("dedup_clips", **{name: made[name] for name in of})
    limits = {"minimum_sharpness": None}
    made["selection"] = run("select_clips", limits, **{name: made[name] for name in (*of, "duplicates")})
    of = ("videos", "clips", "scores", "captions", "selection", "embeddings")
    dataset = run("write_shards", **{name: made[name] for name in of})
    store.promote("dataset", "films", dataset.key)
    store.promote("model", "tiny", _model(store, dataset).key)
    with store.attempt("5" * 64) as attempt:
        (attempt.path / "left.txt").write_bytes(bytes(3000))
        attempt.commit(stage="embed_clips", kind="embeddings")  # that no name leads to


def _metrics() -> dict[str, Any]:
    of_the_world = {"past_frames": 5, "predicted_frames": 8, "height": 16, "width": 16}
    return make_metrics(**of_the_world).model_dump(mode="json")


def _model(store: Store, dataset: Artifact) -> Artifact:
    world = make_world("diffusion")
    world.card = world.card.model_copy(update={"evaluation": _metrics()})
    with store.attempt("6" * 64) as attempt:
        save_bundle(world, attempt.path)
        return attempt.commit(stage="publish_model", kind="model", inputs={"dataset": dataset.key})


def make_files(folder: Path, store: Store, films: Path) -> None:
    """What commands are given: a past and actions for the model, ids of a clip and of a video."""
    film(folder / "past.mp4", 1, 16, 16, speed=1)
    names = "camera_orbit_rate [deg/s],camera_elevation_rate [deg/s],actor_velocity_x [m/s]"
    (folder / "actions.csv").write_text(f"{names}\n" + "30,0,0\n" * 13)
    rows = store.artifact(store.resolve("dataset/films")).table("clips").to_pylist()
    (folder / "clip.id").write_text(min(row["clip_id"] for row in rows if row["kept"]))
    (folder / "video.id").write_text(hashlib.sha256((films / "square.mp4").read_bytes()).hexdigest())
