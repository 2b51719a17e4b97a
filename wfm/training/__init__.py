"""Training: one loop for every family.

Rooms, in reading order:

    objective    what a family brings: loss(model, batch, step) -> (loss, metrics)
    config       TrainingConfig: steps, batch, optimiser, schedule, checkpoints; torch-free
    optim        parameter groups, AdamW and Muon
    schedule     the learning rate as a function of the step
    ema          the running average of the weights that sampling uses
    checkpoint   what a killed run resumes from, bit for bit
    metrics      curves as JSON lines
    loop         train(): reads top to bottom
    sources      what the three training stages read: windows for the tokenizer, encoded samples for the world models
"""

__all__ = ["checkpoint", "config", "ema", "loop", "metrics", "objective", "optim", "schedule", "sources"]
