"""What training reads: latents, and the signals and text of the same samples, which are artifacts of their own.

The latents say which samples there are and in what order. Signals and text are joined to them by clip, first frame and mirror;
they may hold more than that (other splits, other clips), never less: a sample without its signals or text is refused.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wfm.actions import ActionSpec
from wfm.conditions.condition import Condition, View, action_spec
from wfm.data.captions import read_text
from wfm.data.encoded_samples import read_latents, require_samples
from wfm.data.loader.arrays import ArrayDataset
from wfm.data.signals import read_signals
from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


@dataclass
class Encoded:
    """What the encoding left: samples of each split, statistics and the meaning of the actions."""

    train: ArrayDataset
    val: ArrayDataset | None
    statistics: dict[str, Any]
    action_spec: ActionSpec
    fps: float
    extrapolate_from: int = 0
    "Frames that the samples' `extrapolated` was made from; 0: they have none."
    text: dict[str, Any] | None = None
    "Which encoder made the captions' embeddings (encoder, identity, max_length, dtype); None: they were not encoded."
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    "What the model is conditioned on besides, as the data describe it."
    own: Mapping[str, Condition] = field(default_factory=dict)
    """Conditions that the network's configuration has fields for, as the data describe them; of one that another replaces, what
    it is without data."""


def read_encoded(
    latents: "Artifact",
    signals: "Artifact | None" = None,
    text: "Artifact | None" = None,
    conditions: Mapping[str, Condition] | None = None,
    own: Mapping[str, Condition] | None = None,
) -> Encoded:
    """Fetch and read encoded windows with what goes with them; `conditions`, and those that the network has fields of its
    `own` for, read theirs of the signals. Raises DataError when there are no training samples, or one of them lacks its signals
    or text."""
    splits = {split: read_split(latents, split, signals, text) for split in ("train", "val")}
    train_split = splits["train"]
    if train_split is None:
        raise DataError(f"latents {latents.key[:12]} hold no training samples: encode the split 'train'")
    said = json.loads(signals.fetch("signals.json").read_text()) if signals is not None else {}
    meanings = {name: one["meaning"] for name, one in said.items()}
    extrapolate_from = int(latents.manifest.config.get("extrapolate_from", 0))
    known = {**meanings, "extrapolated": {"given_frames": extrapolate_from}}
    more, described = (
        {name: one.described(known) for name, one in (which or {}).items()} for which in (conditions, own)
    )
    replaced = {name for one in more.values() for name in one.replaces}
    fps = float(np.mean(sorted(require_samples(latents, "train").table.column("fps").unique().to_pylist())))
    readers = [*more.values(), *described.values()]  # own last: the actions that others read are as the data have them
    return Encoded(
        with_conditions(train_split, readers, meanings, fps),
        None if splits["val"] is None else with_conditions(splits["val"], readers, meanings, fps),
        json.loads(latents.fetch("latent_statistics.json").read_text()),
        action_spec(meanings),
        fps,
        extrapolate_from,
        text.manifest.extra["text"] if text is not None else None,
        more,
        {name: one if name in replaced else described[name] for name, one in (own or {}).items()},
    )


def read_split(
    latents: "Artifact", split: str, signals: "Artifact | None" = None, text: "Artifact | None" = None
) -> ArrayDataset | None:
    """The samples of a split, signals in raw units; None where none was encoded."""
    found = read_latents(latents, split)
    if found is None:
        return None
    samples, rows = found
    if signals is not None:
        samples = with_signals(samples, rows, signals, split)
    if text is not None:
        captions = read_text(text, split, [row["clip_id"] for row in rows], [row["mirrored"] for row in rows])
        samples = replace(samples, captions=captions)
    return samples


def with_signals(samples: ArrayDataset, rows: list[dict[str, Any]], signals: "Artifact", split: str) -> ArrayDataset:
    """The samples with every signal of their windows beside what they hold. Raises DataError where one is not covered, or a
    signal has the name of an array that is there already."""
    found = read_signals(signals, split).windows(
        *([row[name] for row in rows] for name in ("clip_id", "start_frame", "num_frames")),
        mirrored=[row["mirrored"] for row in rows],
        mirror_signs=signals.manifest.config.get("mirror_signs", {}),
    )
    twice = sorted(set(found) & set(samples.arrays))
    if twice:
        raise DataError(
            f"signals {signals.key[:12]} hold {', '.join(twice)}, which the latents hold too: rename the sidecar"
        )
    return replace(samples, arrays=samples.arrays | {name: torch.from_numpy(array) for name, array in found.items()})


def with_conditions(
    samples: ArrayDataset, conditions: Iterable[Condition], meanings: Mapping[str, Mapping[str, Any]], fps: float
) -> ArrayDataset:
    """The samples with what each condition reads of their signals."""
    for condition in conditions:
        signals = {name: array.numpy() for name, array in samples.arrays.items()}
        frames = max((signals[name].shape[1] for name in meanings if name in signals), default=0)
        read = condition.read(View(signals, frames, fps, meanings))
        samples = replace(samples, arrays=samples.arrays | {name: torch.from_numpy(one) for name, one in read.items()})
    return samples
