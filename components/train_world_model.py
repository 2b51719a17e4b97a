"""Train a world model on encoded windows: a diffusion transformer on latents or a causal transformer on tokens.

Reads `latents`, or several `latents_<name>` that one tokenizer encoded (blended as `training.data` says), `tokenizer` (for
the meaning of the former, and to watch decoded predictions) and, where there are any, the `signals` and the `text` of the same
samples (of several latents also `signals_<name>`, `text_<name>`) and a `mixture` (the categories of classify_clips: how often
each clip is drawn). Writes `model/` (a model folder with the action spec inside) and `metrics.jsonl` (curves). Killed and
started again, it goes on from its last checkpoint and ends with the same bits.

    python -m components.train_world_model --spec URL --input latents=KEY --input tokenizer=KEY \\
        [--input signals=KEY] [--input text=KEY] [--input mixture=KEY] --key-out PATH
"""

from typing import Any

from components.entrypoint import Context, Result, main
from wfm.training.config import WorldTrainingConfig
from wfm.training.external_files import external_files


def external_inputs(
    config: WorldTrainingConfig, inputs: dict[str, str], store: Any
) -> dict[str, dict[str, str]] | None:
    """A model to go on from and a mixture from outside the store, for the key: by their bytes."""
    return external_files(config)


def run(ctx: Context[WorldTrainingConfig]) -> Result:
    """One world model."""
    from wfm.training.fit import fit, open_task
    from wfm.training.order import read_weights

    done = fit(
        open_task(ctx.inputs, ctx.config, ctx.ranks),
        ctx.config,
        out=ctx.out,
        scratch=ctx.checkpoints(),
        stopping=ctx.stopping,
        ranks=ctx.ranks,
        mixture=read_weights(ctx.config.training, ctx.inputs.get("mixture")),
    )
    return Result(
        counts={"inputs": done["samples"], "outputs": 1, "steps": done["steps"]},
        skipped=done["skipped"],
        extra={**done, "external_inputs": ctx.external_inputs},
    )


CONFIG = WorldTrainingConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run, ranks=True)
