"""Which held-out windows are predicted, with which actions, and in which parts: all of it from the signals, no frame decoded.

A part holds the windows of the clips whose hashed ids begin alike, up to `windows_per_part`, so that a video more elsewhere
leaves it alone; it depends on its windows, their clips' bytes, the actions that each is predicted with, and the models.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.actions import ActionSpec, constant_rate, is_moving
from wfm.data.signals import read_signals
from wfm.data.windows import hashed_place, window_row
from wfm.errors import InputError
from wfm.generation.held_out_config import HeldOutConfig
from wfm.parts.prefixes import part_names

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


MODELS = ("tokenizer", "model")


def plan_parts(
    inputs: Mapping[str, "Artifact"], config: HeldOutConfig
) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    """(inputs, arguments) of ``map_parts`` for every split, and how many windows were left out by split and reason."""
    spec, encoded = action_spec_of(inputs["model"]), inputs["latents"].manifest.config
    files = [[entry.path, entry.sha256] for role in MODELS for entry in inputs[role].files("model/")]
    models = {"models": sorted(files), "num_frames": encoded["num_frames"], "size": encoded["size"]}
    keys = {role: inputs[role].key for role in ("dataset", "latents", *MODELS)}
    of_frames = inputs["signals"].manifest.config.get("conditions", {})
    made: tuple[dict[str, Any], dict[str, Any], dict[str, int]] = ({}, {}, {})
    for split in config.splits:
        chosen = choose_windows(
            inputs["signals"], split, spec, num_frames=encoded["num_frames"], stride_frames=config.stride_frames,
            limit=config.max_windows,
        )  # fmt: skip
        chosen = replace(chosen, signals=read_beside(chosen.signals, of_frames) if config.conditions else {})
        shuffled = shuffle_actions(chosen, config.past_frames, spec)
        depends, given = plan_split(
            chosen, shuffled, split, examples=config.examples, windows_per_part=config.windows_per_part
        )
        made[0].update({name: {**one, **models} for name, one in depends.items()})
        made[1].update({name: {**one, **keys} for name, one in given.items()})
        made[2].update({f"{split}_{reason}": count for reason, count in chosen.left.items()})
    return made


@dataclass(frozen=True)
class ChosenWindows:
    """The windows of a split that are predicted, in hashed order."""

    rows: list[dict[str, Any]]
    "As `wfm.data.windows.Window.row` has them."
    clips: list[dict[str, Any]]
    "The clip of each window, as `wfm.data.signals` has it."
    actions: np.ndarray
    "float32 [N, T, A], raw units; width 0 for a model without actions."
    left: dict[str, int]
    "How many were left out, by reason."
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    "Everything else that the data know of them, as `SignalTable.windows` gives it."


def choose_windows(
    signals: "Artifact", split: str, spec: ActionSpec, *, num_frames: int, stride_frames: int, limit: int
) -> ChosenWindows:
    """The windows of a split that a model with the actions `spec` predicts, `limit` at most (0: all).

    The choice and the order go by the hash of the sample id, so that a limit keeps windows of all clips and a longer list keeps
    the shorter one's. Raises InputError for `train`, for actions that mean something else, and where there is no window.
    """
    if split == "train":
        raise InputError(
            "split 'train' is what the model has learned from: predictions of it say nothing; choose val or test"
        )
    table = read_signals(signals, split)
    clips = table.clips.to_pylist()
    every = [
        (clip, start, f"{clip['clip_id']}:{start}")
        for clip in clips
        for start in range(0, clip["num_frames"] - num_frames + 1, stride_frames)
    ]
    begins = table.firsts.get("actions", np.full(len(clips), -1))
    acting = {clip["clip_id"] for clip, first in zip(clips, begins.tolist(), strict=True) if first >= 0}
    known = ActionSpec.parse(table.meanings["actions"]["meaning"]) if acting else ActionSpec.null()
    if spec.width and acting:
        spec.require_same(known, whose=f"split {split!r} of the data set")
    able = [window for window in every if not spec.width or window[0]["clip_id"] in acting]
    able.sort(key=lambda window: hashed_place(window[2]))
    kept = able[:limit] if limit else able
    left = {"without_actions": len(every) - len(able), "over_max_windows": len(able) - len(kept)}
    if not kept:
        raise InputError(
            f"split {split!r} has nothing to predict: {left['without_actions']} windows without the model's actions, "
            f"and no other clip of {num_frames} frames or more"
        )
    found = table.windows(
        [clip["clip_id"] for clip, _, _ in kept], [start for _, start, _ in kept], [num_frames] * len(kept)
    )
    actions = found.get("actions", np.zeros((len(kept), num_frames, 0), np.float32))
    rows = [
        _row(*window[:2], own if window[0]["clip_id"] in acting else own[:, :0], known)
        for window, own in zip(kept, actions, strict=True)
    ]
    acted = actions if spec.width else actions[..., :0]
    return ChosenWindows(rows, [clip for clip, _, _ in kept], acted, left, found)


def read_beside(signals: Mapping[str, np.ndarray], made: Collection[str]) -> dict[str, np.ndarray]:
    """Those that are given as they are: the actions are given apart, and what conditions make of frames (`made`) is made of the
    given frames alone."""
    apart = {"actions", *made}
    return {name: values for name, values in signals.items() if name.removeprefix("has_") not in apart}


def _row(clip: Mapping[str, Any], start: int, actions: np.ndarray, known: ActionSpec) -> dict[str, Any]:
    spec = known if actions.shape[-1] else ActionSpec.null()
    row = window_row(clip, start, clip["start_seconds"] + start / clip["fps"])
    return {**row, "moving": is_moving(actions[:-1], spec), "orbit_rate": constant_rate(actions, spec)}


def shuffle_actions(chosen: ChosenWindows, past_frames: int, spec: ActionSpec) -> np.ndarray:
    """Each window with the FUTURE actions of another: ``[N, T, A]``. Its own past actions stay: the past is the same
    past.

    The donor is the next window (in the hashed order, which is as good as random) of another session whose future
    actions differ by at least a tenth of their typical size on average; without such a one, the next whose actions
    differ at all. A window that no other differs from keeps its own, which makes the comparison harder, never easier.
    """
    shuffled = chosen.actions.copy()
    # the action at the last given frame leads to the first future one
    acting = slice(past_frames - 1, chosen.actions.shape[1])
    scale = np.asarray(spec.scale) if spec.width else np.ones(0)
    sessions = [row["session_id"] for row in chosen.rows]
    for i in range(len(chosen.rows)):
        own = chosen.actions[i, acting]
        fallback = None
        for step in range(1, len(chosen.rows)):
            j = (i + step) % len(chosen.rows)
            far = np.abs((chosen.actions[j, acting] - own) / scale).mean() if spec.width else 0.0
            if far > 0.1 and sessions[j] != sessions[i]:
                fallback = j
                break
            if far > 0 and fallback is None:
                fallback = j
        if fallback is not None:
            shuffled[i, acting] = chosen.actions[fallback, acting]
    return shuffled


def plan_split(
    chosen: ChosenWindows, shuffled: np.ndarray, split: str, *, examples: int, windows_per_part: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs, arguments) of ``map_parts`` for the windows of a split, models left out.

    A part's arguments are its ``rows``, the data set's ``parts`` that hold their clips, the actions ``right`` and ``shuffled``
    (lists; no ``shuffled`` where nothing is to be shuffled), further ``signals`` by name, if any, and the ``examples`` among
    its rows: row -> number in the split.
    """
    places = [hashlib.sha256(row["clip_id"].encode()).hexdigest() for row in chosen.rows]
    named = part_names(Counter(places), windows_per_part, 0)
    members: dict[str, list[int]] = {}
    for i, place in enumerate(places):
        name = named[place]
        members.setdefault(f"{split}-{name.lstrip('-') or 'all'}", []).append(i)
    shuffles = not np.array_equal(shuffled, chosen.actions)
    inputs: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for name, rows in members.items():
        acted = {"right": chosen.actions[rows], **({"shuffled": shuffled[rows]} if shuffles else {})}
        arguments[name] = {
            "split": split,
            "rows": [chosen.rows[i] for i in rows],
            "parts": sorted({chosen.clips[i]["part"] for i in rows}),
            "examples": {str(k): i for k, i in enumerate(rows) if i < examples},
            **{of: values.tolist() for of, values in acted.items()},
        }
        inputs[name] = {
            "windows": hashlib.sha256(json.dumps(arguments[name]["rows"], sort_keys=True).encode()).hexdigest(),
            "clips": sorted({chosen.clips[i]["clip_sha256"] for i in rows}),
            "actions": {of: hashlib.sha256(values.tobytes()).hexdigest() for of, values in acted.items()},
            "examples": arguments[name]["examples"],
        }
        if chosen.signals:
            beside = {of: values[rows] for of, values in chosen.signals.items()}
            arguments[name]["signals"] = {of: values.tolist() for of, values in beside.items()}
            inputs[name]["signals"] = {
                of: hashlib.sha256(values.tobytes()).hexdigest() for of, values in beside.items()
            }
    return inputs, arguments


def action_spec_of(model: "Artifact") -> ActionSpec:
    """The actions that a world model takes, of the card in its folder."""
    path = next(entry.path for entry in model.files("model/") if entry.path.endswith("config.json"))
    return ActionSpec.parse(json.loads(model.fetch(path).read_text()).get("action_spec", {}))
