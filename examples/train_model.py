"""Train again with other options. What is there already (data, tokenizer, latents) is not made again.

    python examples/train_model.py curated demo 'train_diffusion.training.learning_rate=0.001'

The data set, the recipe, options. `wfm run world_model --dry-run --set …` shows first what would run, and why.
"""

import sys

import wfm


def main(dataset: str, profile: str, *options: str) -> None:
    try:
        run = wfm.run("world_model", dataset=dataset, profile=profile, overrides=options)
    except wfm.RunFailed as failed:  # what it made stays: the same again goes on from there
        print(failed)
        for stage in failed.status.stages:
            if stage.state == "failed":
                print(failed.run.logs(stage.stage)[-2000:])
        raise SystemExit(1) from None
    for stage in run.status().stages:
        print(f"{stage.stage}: {stage.state}, {stage.seconds:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
