"""Judge generated videos: nearness to the truth with intervals, baselines, objects, camera, action sensitivity.

Reads `generated` (videos of one model) and, for simulated worlds, `raw` (what the simulator knows). Writes `metrics.json`,
`windows.parquet` (one row for each window and set of videos) and `examples/*.mp4`.

    python -m components.evaluate_model --spec URL --input generated=KEY [--input raw=KEY] --key-out PATH
"""

from components.entrypoint import Context, Result, main
from wfm.config import Natural, how
from wfm.evaluation.config import EvaluationConfig


class EvaluateModelConfig(EvaluationConfig):
    """What is looked at; see `wfm.evaluation.config`."""

    threads: Natural = how(1)
    "CPU threads of torch and OpenCV; 0: as many as there are cores. A window is small work: more threads mostly wait."


def run(ctx: Context[EvaluateModelConfig]) -> Result:
    """Evaluate one split."""
    import cv2
    import torch

    from wfm.evaluation.generated import read_generated
    from wfm.evaluation.report import evaluate
    from wfm.evaluation.results import write_results
    from wfm.evaluation.worlds import Worlds

    if ctx.config.threads:
        torch.set_num_threads(ctx.config.threads)
        cv2.setNumThreads(ctx.config.threads)
    made = read_generated(ctx.inputs["generated"], ctx.config.split)
    raw = ctx.inputs.get("raw")
    metrics, rows = evaluate(made, Worlds(raw) if raw is not None else None, ctx.config)
    examples = write_results(metrics, rows, made, ctx.config, ctx.out)
    return Result(
        counts={"inputs": metrics.windows, "outputs": metrics.windows, "examples": examples},
        skipped={f"object_{reason}": count for reason, count in metrics.objects.skipped.items()},
        extra={"family": metrics.family, "split": metrics.split, "headline_variant": metrics.headline_variant},
    )


CONFIG = EvaluateModelConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
