"""Look through a data set: what each clip is, what moves in it, how bright it is.

python examples/load_dataset.py curated              # a name in the store, a key, or a folder that was pulled
python examples/load_dataset.py ./pulled test 7      # split, and the seed of a shuffled order
"""

import sys
from itertools import islice

import wfm


def main(name: str, split: str = "train", seed: str = "") -> None:
    dataset = wfm.dataset(name, split=split, shuffle=int(seed) if seed else None)
    print(f"{len(dataset)} clips in split {split} of {', '.join(dataset.splits)}")
    for sample in islice(dataset, 5):
        frames = sample.video  # decoded here: uint8 [frames, height, width, 3]
        print(f"{sample.clip_id[:12]} {len(frames)} frames of {sample.size} at {sample.fps:g}/s: {sample.caption}")
        print(f"    mean brightness {frames.mean() / 255:.2f}, scores {dict(islice(sample.scores.items(), 3))}")
        if sample.actions is not None and sample.action_spec is not None:
            for column, (action, unit) in enumerate(
                zip(sample.action_spec.names, sample.action_spec.units, strict=True)
            ):
                values = sample.actions[:, column]
                print(f"    {action}: {values.min():.2f} to {values.max():.2f} {unit}")


if __name__ == "__main__":
    main(*sys.argv[1:])
