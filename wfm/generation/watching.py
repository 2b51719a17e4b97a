"""How far a generation is, in frames: a look at the network's passes from outside, which no result depends on."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wfm.generation.rollout import latent_frames
from wfm.generation.world_model import WorldCard, WorldModel
from wfm.log import progress


@contextmanager
def watched(world: WorldModel, total: int, mode: str) -> Iterator[None]:
    """Show progress while ``total`` frames are generated inside the block: a bar with rate and time left on a terminal."""
    frames = total - world.card.past_frames
    share = frames / max(expected_passes(world, total, mode), 1)
    seen = 0.0
    network = world.drawing.watched(world.model)
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


def new_frames(card: WorldCard) -> int:
    """Frames that one window adds to those it is given."""
    return card.num_frames - card.past_frames


def windows_of(world: WorldModel, total: int) -> int:
    """In how many windows a future of ``total`` frames, the given ones included, is drawn (`wfm.generation.rollout`)."""
    card, step = world.card, world.tokenizer.config.temporal_compression
    if not world.rollout().stays_encoded:
        return math.ceil((total - card.past_frames) / new_frames(card))
    whole = 1 + math.ceil((total - 1) / step) * step
    given, window, wanted = (latent_frames(world.tokenizer, n) for n in (card.past_frames, card.num_frames, whole))
    return math.ceil((wanted - given) / (window - given))


def expected_passes(world: WorldModel, total: int, mode: str) -> int:
    """Passes of the network that a generation takes; with drafts at most so many."""
    card, tokenizer = world.card, world.tokenizer.config
    rows, columns = (side // tokenizer.spatial_compression for side in card.size)

    def passes(frames: int) -> int:
        latents = math.ceil(frames / tokenizer.temporal_compression)
        return world.drawing.passes(world.model, card.sampling, mode, (latents, rows, columns))

    if world.rollout().stays_encoded:
        return passes(total - card.past_frames)
    window = new_frames(card)
    whole, rest = divmod(total - card.past_frames, window)
    return whole * passes(window) + (passes(rest) if rest else 0)
