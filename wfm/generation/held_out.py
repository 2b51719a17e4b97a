"""Futures for every held-out window of a data set: what evaluation judges.

Layout of the result, for each split:

    card.json                            family, past_frames, num_frames, size, fps, action_spec, sampling, seed
    <split>/samples.parquet              one row per window
    <split>/actions.safetensors          right, shuffled: float32 [N, T, A], raw units
    <split>/truth.safetensors            video uint8 [N, T, H, W, 3]
    <split>/tokenizer.safetensors        its reconstruction: no model can do better
    <split>/<variant>.safetensors        one file per variant of the family: sampled, mean, shuffled_action, ...
    mp4/<split>-<number>-<variant>.mp4   a few of them, to look at

The first frames of every video but the tokenizer's are the given ones, bit for bit; of the tokenizer's too, so that
all are compared alike.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wfm.actions import ActionSpec
from wfm.data.seeds import derived_seed
from wfm.data.windows import Window
from wfm.errors import Cancelled
from wfm.generation.world_model import WorldModel
from wfm.generation.write_video import from_uint8, to_uint8, write_mp4
from wfm.log import progress
from wfm.models.folder import save_tensors

VARIANTS: dict[str, dict[str, str]] = {
    "diffusion": {"sampled": "sample", "mean": "mean", "shuffled_action": "sample"},
    "autoregressive": {"greedy": "greedy", "mean": "mean", "sampled": "sample", "shuffled_action": "greedy"},
}
"""Family -> variant -> mode. The shuffled twin is made as the family's headline variant is, with the same seeds."""


@dataclass(frozen=True)
class HeldOut:
    """The windows of one split as arrays."""

    rows: list[dict[str, Any]]
    frames: np.ndarray
    "uint8 [N, T, H, W, 3]."
    actions: np.ndarray
    "float32 [N, T, A], raw units."


def collect(windows: Iterable[Window], spec: ActionSpec, limit: int) -> tuple[HeldOut | None, dict[str, int]]:
    """Windows as arrays, and how many were left out by reason: over ``limit`` (0: no limit), or without the model's
    actions.

    The choice and the order go by the hash of the sample id, so that a limit keeps windows of all clips and a longer
    list keeps the shorter one's. None where there is no window. Raises InputError for a window whose actions mean
    something else.
    """
    every = list(windows)
    acting = [w for w in every if not spec.width or w.action_spec.width]
    for window in acting:
        if spec.width:
            spec.require_same(window.action_spec, whose=f"clip {window.clip_id[:12]}")
    acting.sort(key=lambda w: hashlib.sha256(w.sample_id.encode()).digest())
    kept = acting[:limit] if limit else acting
    left = {"without_actions": len(every) - len(acting), "over_max_windows": len(acting) - len(kept)}
    if not kept:
        return None, left
    actions = [w.actions if spec.width else w.actions[:, :0] for w in kept]
    return HeldOut([w.row() for w in kept], np.stack([w.frames for w in kept]), np.stack(actions)), left


def shuffle_actions(held: HeldOut, past_frames: int, spec: ActionSpec) -> np.ndarray:
    """Each window with the FUTURE actions of another: ``[N, T, A]``. Its own past actions stay: the past is the same
    past.

    The donor is the next window (in the hashed order, which is as good as random) of another session whose future
    actions differ by at least a tenth of their typical size on average; without such a one, the next whose actions
    differ at all. A window that no other differs from keeps its own, which makes the comparison harder, never easier.
    """
    shuffled = held.actions.copy()
    acting = slice(
        past_frames - 1, held.actions.shape[1]
    )  # the action at the last given frame leads to the first future one
    scale = np.asarray(spec.scale) if spec.width else np.ones(0)
    sessions = [row["session_id"] for row in held.rows]
    for i in range(len(held.rows)):
        own = held.actions[i, acting]
        fallback = None
        for step in range(1, len(held.rows)):
            j = (i + step) % len(held.rows)
            far = np.abs((held.actions[j, acting] - own) / scale).mean() if spec.width else 0.0
            if far > 0.1 and sessions[j] != sessions[i]:
                fallback = j
                break
            if far > 0 and fallback is None:
                fallback = j
        if fallback is not None:
            shuffled[i, acting] = held.actions[fallback, acting]
    return shuffled


def generate_split(
    world: WorldModel,
    held: HeldOut,
    out: Path,
    *,
    split: str,
    seed: int,
    examples: int,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
    """Write everything of one split below ``out``; returns counts. Raises Cancelled when ``stopping()`` turns true."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    card, folder = world.card, out / split
    folder.mkdir(parents=True, exist_ok=True)
    (out / "mp4").mkdir(exist_ok=True)
    shuffled = shuffle_actions(held, card.past_frames, world.action_spec)
    pq.write_table(pa.Table.from_pylist(held.rows), folder / "samples.parquet")
    save_tensors(
        {"right": torch.from_numpy(held.actions), "shuffled": torch.from_numpy(shuffled)},
        folder / "actions.safetensors",
    )
    seeds = [derived_seed(seed, row["sample_id"]) for row in held.rows]
    variants = VARIANTS[card.family]
    if not world.action_spec.width or np.array_equal(shuffled, held.actions):  # nothing to shuffle
        variants = {name: mode for name, mode in variants.items() if name != "shuffled_action"}
    batch = card.sampling.batch_size
    with progress(len(held.rows) * (len(variants) + 1), f"generating {split}", "videos") as shown:
        for name in ("truth", "tokenizer", *variants):
            actions = shuffled if name == "shuffled_action" else held.actions
            made = np.empty_like(held.frames)
            for start in range(0, len(made), batch):
                if stopping():
                    raise Cancelled(f"generating {split}/{name}: asked to stop")
                rows = slice(start, start + batch)
                words = [row["caption"] for row in held.rows[rows]] if world.reads_text else None
                mode = variants.get(name, "")
                made[rows] = _videos(world, held.frames[rows], actions[rows], words, seeds[rows], name, mode)
                shown.advance(0 if name == "truth" else len(made[rows]))
            save_tensors({"video": torch.from_numpy(made)}, folder / f"{name}.safetensors")
            for number in range(min(examples, len(made))):
                write_mp4(out / "mp4" / f"{split}-{number:03d}-{name}.mp4", made[number], card.fps)
    return {f"{split}_windows": len(held.rows), f"{split}_videos": len(held.rows) * len(variants)}


@torch.no_grad()
def _videos(
    world: WorldModel,
    truth: np.ndarray,
    actions: np.ndarray,
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
        made = world.tokenizer(video)
    else:
        known = actions if world.action_spec.width else None
        made = world.generate(
            video[:, :, :given], known, num_frames=truth.shape[1], seeds=seeds, mode=mode, text=captions
        )
    frames = to_uint8(made.cpu().numpy())
    frames[:, :given] = truth[:, :given]
    return frames
