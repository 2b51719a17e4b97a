"""Train a video tokenizer on a data set's train split, started from the principal components of its patches or, with
`initial`, from a tokenizer trained before.

Reads `dataset`, and what the config names outside the store. Writes `model/` (a model folder), `metrics.jsonl` (curves).
Killed and started again, it goes on from its last checkpoint and ends with the same bits.

    python -m components.train_tokenizer --spec URL --input dataset=KEY --key-out PATH
"""

from typing import Any

from components.entrypoint import Context, Result, main
from wfm.training.config import TokenizerTraining
from wfm.training.external_files import external_files


def external_inputs(config: TokenizerTraining, inputs: dict[str, str], store: Any) -> dict[str, dict[str, str]] | None:
    """Weights and a mixture from outside the store, for the key: by their bytes."""
    return external_files(config)


def run(ctx: Context[TokenizerTraining]) -> Result:
    """One tokenizer, continuous or discrete."""
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
    return Result(
        counts={"inputs": done["windows"] + done["windows_left_out"], "outputs": 1, "steps": done["steps"]},
        skipped={"over_max_windows": done["windows_left_out"], **done["skipped"]},
        extra={**done, "external_inputs": ctx.external_inputs},
    )


CONFIG = TokenizerTraining

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run, ranks=True)
