"""Train a diffusion decoder: the tokens of the discrete tokenizer to latents of the continuous one.

Reads `latents` and `tokens` (the same windows, encoded by each) and both tokenizers. Writes `model/` (the decoder),
`tokenizer/` (the continuous tokenizer, which makes video of what the decoder draws) and `metrics.jsonl` (curves). Killed
and started again, it goes on from its last checkpoint and ends with the same bits.

    python -m components.train_decoder --spec URL --input latents=KEY --input tokens=KEY --input tokenizer=KEY
        --input tokenizer_discrete=KEY --key-out PATH
"""

from typing import Any

from components.entrypoint import Context, Result, main
from wfm.training.config import DecoderTraining
from wfm.training.external_files import external_files


def external_inputs(config: DecoderTraining, inputs: dict[str, str], store: Any) -> dict[str, dict[str, str]] | None:
    """A mixture from outside the store, for the key: by its bytes."""
    return external_files(config)


def run(ctx: Context[DecoderTraining]) -> Result:
    """One decoder."""
    from wfm.training.fit import fit, open_task
    from wfm.training.order import read_weights

    done = fit(
        open_task(ctx.inputs, ctx.config, ctx.ranks),
        ctx.config,
        out=ctx.out,
        scratch=ctx.checkpoints(),
        stopping=ctx.stopping,
        ranks=ctx.ranks,
        mixture=read_weights(ctx.config.training),
    )
    counts = {"inputs": done["samples"] + done["left_out"], "outputs": 1, "steps": done["steps"]}
    return Result(counts=counts, skipped={"in_one_alone": done["left_out"], **done["skipped"]}, extra=done)


CONFIG = DecoderTraining

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run, ranks=True)
