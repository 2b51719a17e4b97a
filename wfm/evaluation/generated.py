"""The videos under judgement: an artifact of kind `generated`, one split of it, in memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.actions import ActionSpec
from wfm.data.dataset_parts import split_files
from wfm.data.windows import hashed_place
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

CARD_FIELDS = ("family", "past_frames", "fps", "action_spec", "headline", "title", "labels")
"""What is read of `card.json`."""

TRUTH, CEILING, SHUFFLED = "truth", "tokenizer", "shuffled_action"


@dataclass(frozen=True)
class GeneratedVideos:
    """Videos uint8 [N, T, H, W, 3] whose first `past_frames` were given; row i of each is window i of `samples`."""

    family: str
    split: str
    past_frames: int
    fps: float
    samples: list[dict[str, Any]]
    """One a window: sample_id, clip_id, session_id, source, start_seconds, fps, moving, ..."""
    videos: dict[str, np.ndarray]
    """"truth", "tokenizer" (its reconstruction: the ceiling) and the model's variants."""
    actions: np.ndarray
    """float32 [N, T, A] as given to the model, in the units of `spec`."""
    shuffled_actions: np.ndarray
    spec: ActionSpec
    headline: str
    """The variant that the model is judged by first; its shuffled-action twin is made the same way."""
    title: str
    """What people call the family."""
    labels: Mapping[str, str]
    """What they call its variants, by name."""

    @property
    def truth(self) -> np.ndarray:
        return self.videos[TRUTH]

    @property
    def variants(self) -> list[str]:
        """The model's own videos, the headline one first."""
        own = sorted(set(self.videos) - {TRUTH, CEILING})
        return sorted(own, key=lambda name: (name != self.headline, name == SHUFFLED, name))

    @property
    def sessions(self) -> list[str]:
        return [str(sample["session_id"]) for sample in self.samples]

    @property
    def moving(self) -> np.ndarray:
        return np.array([bool(sample["moving"]) for sample in self.samples], dtype=bool)


def read_generated(artifact: "Artifact", split: str) -> GeneratedVideos:
    """Read one split. Raises InputError where the split was not generated or the artifact is older than what is read of it,
    DataError where files contradict each other."""
    paths = split_files(artifact, split)
    folders = sorted({path.rpartition("/")[0] for path in paths})
    if not folders:
        found = sorted(
            {path.split("/")[-2] for path in (e.path for e in artifact.files()) if path.endswith("samples.parquet")}
        )
        raise InputError(f"split {split!r} is not among the generated videos; found: {', '.join(found) or 'none'}")
    pieces = [
        _read_folder(artifact, [path for path in paths if path.rpartition("/")[0] == folder]) for folder in folders
    ]
    if len({frozenset(tensors) for _, tensors in pieces}) > 1:
        raise DataError(f"parts of the split {split!r} hold different sets of videos: generate them again")
    samples = [row for rows, _ in pieces for row in rows]
    tensors = {name: np.concatenate([piece[name] for _, piece in pieces]) for name in pieces[0][1]}
    if len(pieces) > 1:  # one part is in order
        order = sorted(range(len(samples)), key=lambda i: hashed_place(samples[i]["sample_id"]))
        samples, tensors = [samples[i] for i in order], {name: tensor[order] for name, tensor in tensors.items()}
    with artifact.open("card.json") as file:
        card = json.load(file)
    lacking = [name for name in CARD_FIELDS if name not in card]
    if lacking:
        raise InputError(
            f"artifact {artifact.key[:12]} ({artifact.kind}): its card.json lacks {', '.join(lacking)}; an older wfm made "
            "it: generate again with this one"
        )
    made = GeneratedVideos(
        family=str(card["family"]),
        split=split,
        past_frames=int(card["past_frames"]),
        fps=float(card["fps"]),
        samples=samples,
        videos={name: video for name, video in tensors.items() if name not in ("right", "shuffled")},
        actions=tensors["right"],
        shuffled_actions=tensors["shuffled"],
        spec=ActionSpec.from_json(card["action_spec"]),
        headline=str(card["headline"]),
        title=str(card["title"]),
        labels=card["labels"],
    )
    check(made)
    return made


def _read_folder(artifact: "Artifact", paths: list[str]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The rows of one part, and its videos and actions by name."""
    import pyarrow.parquet as pq
    from safetensors.numpy import load_file

    tensors: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name == "samples.parquet":
            rows = pq.read_table(artifact.fetch(path)).to_pylist()
        elif name == "actions.safetensors":
            tensors |= load_file(artifact.fetch(path))
        elif name.endswith(".safetensors"):
            tensors[name.removesuffix(".safetensors")] = load_file(artifact.fetch(path))["video"]
    if not {"right", "shuffled"} <= set(tensors):
        raise DataError(f"generated videos lack {folder}/actions.safetensors")
    return rows, tensors


def check(made: GeneratedVideos) -> None:
    """Raise DataError unless all sets are uint8 videos of one shape with the same given frames, one row a sample."""
    if TRUTH not in made.videos:
        raise DataError(f"generated videos lack {TRUTH!r}; found: {', '.join(sorted(made.videos))}")
    shape = made.truth.shape
    for name, video in made.videos.items():
        if video.shape != shape or video.dtype != np.uint8:
            raise DataError(f"videos {name!r} are {video.dtype} {video.shape}, the truth is uint8 {shape}")
    if len(made.samples) != shape[0]:
        raise DataError(f"samples.parquet has {len(made.samples)} rows, the videos {shape[0]}")
    if shape[0] == 0:
        raise InputError(f"split {made.split!r} holds no window: nothing can be evaluated")
    if not 0 < made.past_frames < shape[1]:
        raise DataError(f"past_frames is {made.past_frames}, the videos have {shape[1]} frames: none are predicted")
    for name, track in (("right", made.actions), ("shuffled", made.shuffled_actions)):
        if track.shape != (*shape[:2], made.spec.width):
            raise DataError(
                f"actions {name!r} are {track.shape}, not {(*shape[:2], made.spec.width)} as videos and spec say"
            )
    if not made.variants:
        raise DataError("generated videos hold no variant of the model beside truth and tokenizer")
