"""The library half of ``wfm generate MODEL --past CLIP [--action FILE | --camera FILE]``: files in, an mp4 and a JSON
sidecar out, by what ``wfm.load`` and ``predict`` do."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.generation.given_actions import require_one
from wfm.generation.published import load_from
from wfm.generation.video import Written, check_target
from wfm.models.seeding import check_seed

if TYPE_CHECKING:
    from wfm.artifacts import Store


def generate_from_files(
    store: "Store",
    model_name_or_path: str | os.PathLike[str],
    past: str | os.PathLike[str],
    action_file: str | os.PathLike[str] | None = None,
    camera_file: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "future.mp4",
    seed: int = 0,
    mode: str = "",
    num_frames: int = 0,
    seconds: float | None = None,
    text: str = "",
    text_encoder: str = "",
    guidance: float | None = None,
    negative_text: str = "",
    decoder: str = "",
    force: bool = True,
) -> Written:
    """Continue a video file with a published model and write ``out`` (mp4) and ``out`` with the suffix ``.json``.

    model_name_or_path, text_encoder, decoder: as `wfm.generation.published.load` has them; the rest as
    `PublishedModel.predict`, with 0 frames for those of a window. What can be refused without the model is refused before it
    is opened. Nothing is written unless everything went well; without ``force`` never over another file. Raises InputError
    (or a kind of it) for whatever is wrong with what was given.
    """
    target = Path(out)
    check_target(target, force=force)
    check_seed(seed)
    require_one(action_file, camera_file)
    model = load_from(lambda: store, model_name_or_path, decoder=decoder, text_encoder=text_encoder)
    video = model.predict(
        past, action_file, camera=camera_file, text=text, negative_text=negative_text, seconds=seconds,
        frames=num_frames or None, seed=seed, mode=mode, guidance=guidance,
    )  # fmt: skip
    return video.save(target, force=force)
