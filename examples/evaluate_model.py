"""Hold a model against the truth, and against the cheapest baseline: the last frame, again and again.

    python examples/evaluate_model.py diffusion curated 8         # on the first 8 clips of the split `test`

This is a look at a few clips. The evaluation that a model was published with is `model.figures`: all held-out windows, more
metrics and baselines, intervals by session.
"""

import sys
from itertools import islice

import numpy as np

import wfm


def psnr(predicted: np.ndarray, truth: np.ndarray) -> float:
    """uint8 frames against uint8 frames [dB]."""
    error = np.mean((predicted.astype(float) - truth) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-10)))


def main(name: str, dataset: str, clips: str = "8") -> None:
    model = wfm.load(name)
    past, window = model.card.past_frames, model.card.num_frames
    gains = []
    for sample in islice(wfm.dataset(dataset, split="test"), int(clips)):
        truth = sample.frames(size=model.card.size)[:window]
        if len(truth) < window:
            print(f"{sample.clip_id[:12]}: {len(truth)} frames, {window} are needed")
            continue
        actions = None if sample.actions is None else sample.actions[:window]
        video = model.predict(truth[:past], actions=actions, seed=0)
        still = np.broadcast_to(truth[past - 1], video.future.shape)
        ours, theirs = psnr(video.future, truth[past:]), psnr(still, truth[past:])
        gains.append(ours - theirs)
        print(f"{sample.clip_id[:12]}: {ours:.1f} dB, the last frame again {theirs:.1f} dB")
    print(
        f"{np.mean(gains):+.1f} dB over the last frame again, better on {np.mean(np.array(gains) > 0):.0%} of {len(gains)}"
    )
    print(f"it was published with figures over {model.figures.get('windows', 'no')} held-out windows")


if __name__ == "__main__":
    main(*sys.argv[1:])
