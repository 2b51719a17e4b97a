"""Training: one loop for every family.

Rooms, in reading order:

    objective    what a family brings: loss(model, batch, step) -> (loss, metrics); and the second player of an adversarial run
    config       TrainingConfig: steps, batch, optimiser, schedule, checkpoints, and what all training configs have; torch-free
    data_config  recipes: sources, rates, lanes, phases, batches or packs; torch-free
    optim        parameter groups, AdamW and Muon
    muon         orthogonalised momentum, of matrices that are spread over ranks too
    schedule     the learning rate as a function of the step
    ema          the running average of the weights that sampling uses
    checkpoint   what a killed run resumes from, bit for bit; learning: everything that changes in a run, to files and back
                 (sharded: in parts, which any number of ranks reads; behind: written while the steps go on)
    metrics      curves as JSON lines
    pace         when to save, and how far a training may run ahead of the store
    step         the gradient of one step, over micro-batches and ranks; divergence: a loss that is no number
    meter        what is measured between two points of a curve
    device       where a training computes, and in what
    profiling    a look at a few steps, on request
    loop         train(): reads top to bottom
    joint        batches of single frames among those of videos
    order        the order of samples by the run's settings: seed, batch, mixture
    external_files     files from outside the store, which enter a key by their bytes
    encode       windows or whole clips of a data set -> latents or tokens, once, so that world models train without a pixel
                 (encode_config: which; moments: their statistics over all parts); encode_text: captions -> embeddings
    encoded      latents with the signals and text of the same samples, as training reads them
    held_out     the few samples that are watched, read once
    task         what a family makes of its inputs and its config
    fit          fit(): what the stages do with it: order, seed, build, train, save
    fit_world_model    the task of a world model; what is a family's own stands in `wfm/families/*/fit.py`
"""

__all__ = [
    "behind", "checkpoint", "config", "data_config", "device", "divergence", "ema", "encode", "encode_config", "encode_text",
    "encoded", "external_files", "fit", "fit_world_model", "guard", "held_out", "joint", "learning", "loop", "meter", "metrics",
    "moments", "muon", "objective", "optim", "order", "pace", "profiling", "schedule", "sharded", "step", "task",
]  # fmt: skip
