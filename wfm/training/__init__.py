"""Training: one loop for every family.

Rooms, in reading order:

    objective    what a family brings: loss(model, batch, step) -> (loss, metrics); and the second player of an adversarial run
    config       TrainingConfig: steps, batch, optimiser, schedule, checkpoints; torch-free
    optim        parameter groups, AdamW and Muon
    schedule     the learning rate as a function of the step
    ema          the running average of the weights that sampling uses
    checkpoint   what a killed run resumes from, bit for bit
    metrics      curves as JSON lines
    loop         train(): reads top to bottom
    joint        batches of single frames among those of videos
    outside      files from outside that enter a key by their bytes
    sources      what the three training stages read: windows for the tokenizer, encoded samples for the world models
"""

__all__ = [
    "checkpoint", "config", "ema", "joint", "loop", "metrics", "objective", "optim", "outside", "schedule", "sources",
]  # fmt: skip
