"""Futures for every held-out window of a data set: what evaluation judges.

Layout of the result: `card.json` (family, past_frames, num_frames, size, fps, action_spec, sampling, seed), and in each part,
which holds windows of one split:

    <split>/samples.parquet              one row per window
    <split>/actions.safetensors          right, shuffled: float32 [N, T, A], raw units
    <split>/truth.safetensors            video uint8 [N, T, H, W, 3]
    <split>/tokenizer.safetensors        its reconstruction: no model can do better
    <split>/<variant>.safetensors        one file per variant of the family: sampled, mean, shuffled_action, ...
    mp4/<split>-<number>-<variant>.mp4   a few of them, to look at

The first frames of every video but the tokenizer's are the given ones, bit for bit; of the tokenizer's too, so that
all are compared alike. Rows stand in hashed order (`wfm.data.windows.hashed_place`). What a window is given does not depend, to
the bit, on what else is in its part.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wfm.data.seeds import derived_seed
from wfm.data.shards import iter_samples
from wfm.data.windows import decode_sample
from wfm.errors import DataError
from wfm.generation.from_artifacts import card_values, open_world
from wfm.generation.held_out_config import HeldOutConfig
from wfm.generation.world_model import WorldModel
from wfm.generation.write_video import from_uint8, to_uint8, write_mp4
from wfm.models.folder import save_tensors
from wfm.parts.kept import Kept
from wfm.parts.part import PartLike

if TYPE_CHECKING:
    from wfm.artifacts import Store

SHUFFLED = "shuffled_action"
"""The twin with other actions; it is made as the family's headline variant is, with the same seeds."""
_WORLDS: Kept[WorldModel] = Kept()


@dataclass(frozen=True)
class HeldOut:
    """Windows of one split as arrays."""

    split: str
    rows: list[dict[str, Any]]
    frames: np.ndarray
    "uint8 [N, T, H, W, 3]."
    actions: np.ndarray
    "float32 [N, T, A], raw units."
    shuffled: np.ndarray | None
    "The same with other futures (`held_out_plan.shuffle_actions`); None where nothing is to be shuffled."
    examples: Mapping[int, int]
    "Rows that are written as mp4 too -> their number in the split."
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    "Further signals that conditions read, by name: `[N, T, ...]`, raw units, and `has_<name>` bool `[N]`."


def read_held_out(
    store: "Store", arguments: Mapping[str, Any], *, num_frames: int, size: tuple[int, int], width: int
) -> HeldOut:
    """The windows of a part as `held_out_plan.plan_split` lists them, frames decoded. Raises DataError for a window whose
    frames the data set does not hold."""
    rows = arguments["rows"]
    wanted = {row["clip_id"] for row in rows}
    clips: dict[str, np.ndarray] = {}
    dataset = store.artifact(arguments["dataset"])
    for part in arguments["parts"]:
        source = dataset.part(part)
        for entry in source.files(f"shards/{arguments['split']}/"):
            if entry.path.endswith(".tar"):
                samples = iter_samples(source.fetch(entry.path))
                clips |= {s.key: decode_sample(s, size).frames for s in samples if s.key in wanted}
    for row in rows:
        if len(clips.get(row["clip_id"], ())) < row["start_frame"] + num_frames:
            raise DataError(
                f"window {row['sample_id']}: the data set holds {len(clips.get(row['clip_id'], ()))} frames of its clip; the "
                "signals were read of another data set"
            )
    frames = [clips[row["clip_id"]][row["start_frame"] :][:num_frames] for row in rows]
    shape = (len(rows), num_frames, width)
    return HeldOut(
        arguments["split"],
        rows,
        np.stack(frames),
        np.asarray(arguments["right"], np.float32).reshape(shape),
        np.asarray(arguments["shuffled"], np.float32).reshape(shape) if "shuffled" in arguments else None,
        {int(row): number for row, number in arguments["examples"].items()},
        {name: as_signal(values) for name, values in arguments.get("signals", {}).items()},
    )


def as_signal(values: list[Any]) -> np.ndarray:
    """A signal of a part's arguments as it was."""
    made = np.asarray(values)
    return made if made.dtype == bool else made.astype(np.float32)


def generate_part(part: PartLike) -> dict[str, int]:
    """Make one part as `held_out_plan` plans it; the models stay open for the next. Returns counts."""
    config, store = part.config, part.open_store()
    if config.threads:
        torch.set_num_threads(config.threads)
    world = open_kept_world(store, part.arguments, config)
    held = read_held_out(
        store, part.arguments, num_frames=world.card.num_frames, size=world.card.size, width=world.action_spec.width
    )
    made = write_part(world, held, part.out, seed=config.seed)
    (part.out / "card.json").write_text(json.dumps(card_values(world, seed=config.seed)))
    return {**made, **{f"{held.split}_{name}": count for name, count in made.items()}}


def open_kept_world(store: "Store", keys: Mapping[str, str], config: HeldOutConfig) -> WorldModel:
    """The world model of artifacts by their keys, opened once a process."""
    roles = {role: keys[role] for role in ("tokenizer", "model", "latents")}
    asked = json.dumps([store.url, roles, config.past_frames, config.sampling.resolved(), config.conditions])
    return _WORLDS.get(
        asked,
        lambda: open_world(
            {role: store.artifact(key) for role, key in roles.items()},
            past_frames=config.past_frames,
            sampling=config.sampling,
            family=config.family,
            tokenizer_family=config.tokenizer_family,
            conditions=config.conditions,
        ),
    )


def write_part(world: WorldModel, held: HeldOut, out: Path, *, seed: int) -> dict[str, int]:
    """Write everything of one part below ``out``; returns counts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    card, folder = world.card, out / held.split
    folder.mkdir(parents=True, exist_ok=True)
    (out / "mp4").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(held.rows), folder / "samples.parquet")
    shuffled = held.actions if held.shuffled is None else held.shuffled
    save_tensors(
        {"right": torch.from_numpy(held.actions), "shuffled": torch.from_numpy(shuffled)},
        folder / "actions.safetensors",
    )
    seeds = [derived_seed(seed, row["sample_id"]) for row in held.rows]
    variants = (*world.family.variants, *([SHUFFLED] if held.shuffled is not None else []))
    batch = card.sampling.batch_size
    for name in ("truth", "tokenizer", *variants):
        actions = shuffled if name == SHUFFLED else held.actions
        made = np.empty_like(held.frames)
        for start in range(0, len(made), batch):
            rows = slice(start, start + batch)
            words = [row["caption"] for row in held.rows[rows]] if world.reads_text else None
            mode = world.family.mode_of(name)
            beside = {signal: values[rows] for signal, values in held.signals.items()}
            made[rows] = _videos(world, held.frames[rows], actions[rows], beside, words, seeds[rows], name, mode)
        save_tensors({"video": torch.from_numpy(made)}, folder / f"{name}.safetensors")
        for row, number in held.examples.items():
            write_mp4(out / "mp4" / f"{held.split}-{number:03d}-{name}.mp4", made[row], card.fps)
    return {"windows": len(held.rows), "videos": len(held.rows) * len(variants)}


@torch.no_grad()
def _videos(
    world: WorldModel,
    truth: np.ndarray,
    actions: np.ndarray,
    signals: Mapping[str, np.ndarray],
    captions: list[str] | None,
    seeds: list[int],
    name: str,
    mode: str,
) -> np.ndarray:
    """One batch of one variant, uint8 ``[B, T, H, W, 3]``, with the given frames of the truth in front."""
    if name == "truth":
        return truth
    given, device = world.card.past_frames, next(world.model.parameters()).device
    video = torch.from_numpy(np.ascontiguousarray(from_uint8(truth))).to(device)
    if name == "tokenizer":
        rows = [min(i, len(video) - 1) for i in range(world.sampling_batch)]  # as of the model: a batch has one size
        made = world.tokenizer(video[rows])[: len(video)]
    else:
        known = actions if world.action_spec.width else None
        made = world.generate(
            video[:, :, :given],
            known,
            num_frames=truth.shape[1],
            seeds=seeds,
            mode=mode,
            text=captions,
            signals=signals,
        )
    frames = to_uint8(made.cpu().numpy())
    frames[:, :given] = truth[:, :given]
    return frames
