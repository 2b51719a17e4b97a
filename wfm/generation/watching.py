"""How far a generation is, in frames: a look at the network's passes from outside, which no result depends on."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from wfm.generation.sampler_config import TWICE
from wfm.generation.world_model import WorldModel
from wfm.log import progress
from wfm.models.diffusion import Denoiser


@contextmanager
def watched(world: WorldModel, total: int, mode: str) -> Iterator[None]:
    """Show progress while ``total`` frames are generated inside the block: a bar with rate and time left on a terminal."""
    frames = total - world.card.past_frames
    share = frames / max(expected_passes(world, total, mode), 1)
    seen = 0.0
    network: Any = world.model.network if isinstance(world.model, Denoiser) else world.model.layers[0]  # type: ignore[index]
    with progress(frames, "generating", "frames") as shown:

        def passed(*_: Any) -> None:
            nonlocal seen
            step = min(share, frames - seen)  # drafts that are kept save passes, never add frames
            seen += step
            shown.advance(step)

        handle = network.register_forward_hook(passed)
        try:
            yield
            shown.advance(frames - seen)
        finally:
            handle.remove()


def expected_passes(world: WorldModel, total: int, mode: str) -> int:
    """Passes of the network that a generation takes; with Medusa heads at most so many."""
    card, sampling = world.card, cast(Any, world.card.sampling)
    if isinstance(world.model, Denoiser):
        windows = math.ceil((total - card.past_frames) / (card.num_frames - card.past_frames))
        steps = 1 if mode == "mean" else sampling.steps
        return windows * (2 * steps - 1 if sampling.sampler in TWICE else steps)
    config, tokenizer = world.model.config, world.tokenizer.config
    latents = math.ceil((total - card.past_frames) / tokenizer.temporal_compression)  # type: ignore[operator]
    if config.order == "frame":  # type: ignore[union-attr]
        return latents
    return latents * math.prod(side // tokenizer.spatial_compression for side in card.size)  # type: ignore[operator]
