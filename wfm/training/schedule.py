r"""The learning rate as a function of the step: linear warm-up, plateau, decay to a share of the peak, cool-down to nothing.

    1     ______
         /      \            linear, or half a cosine
        /        \______
       /                 \
    0 /                   \   in the last `cooldown_share` of the steps
"""

import math

from wfm.training.config import TrainingConfig


def rate(step: int, config: TrainingConfig) -> float:
    """The factor on the peak learning rates at `step` (0-based), in (0, 1]."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cooling = config.cooldown_share * config.steps
    cool = min(1.0, (config.steps - step) / cooling) if cooling > 0 else 1.0
    decay_steps = config.decay_share * config.steps
    if decay_steps <= 0:
        return warm * cool
    left = min(1.0, max(0.0, config.steps - cooling - step) / decay_steps)
    if config.decay_shape == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return warm * cool * (config.final_share + (1 - config.final_share) * left)
