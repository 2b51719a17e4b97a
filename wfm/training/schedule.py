"""The learning rate as a pure function of the step: linear warm-up, plateau, linear decay."""

from wfm.training.config import TrainingConfig


def rate(step: int, config: TrainingConfig) -> float:
    """The factor on the peak learning rates at `step` (0-based), in (0, 1]."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = config.decay_share * config.steps
    if decay_steps <= 0:
        return warm
    left = min(1.0, (config.steps - step) / decay_steps)
    return warm * (config.final_share + (1 - config.final_share) * left)
