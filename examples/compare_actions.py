"""One past, several futures: what a model makes of turning the camera left, right, or not at all.

python examples/compare_actions.py diffusion clip.mp4 OUT_FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import wfm


def main(name: str, clip: str, out: str) -> None:
    model = wfm.load(name)
    Path(out).mkdir(parents=True, exist_ok=True)
    still = dict.fromkeys(model.action_spec.names, 0.0)  # one value holds for every frame
    first = model.action_spec.names[0]
    size = 1.0 if model.action_spec.scale[0] == 0 else model.action_spec.scale[0]
    futures = {}
    for word, value in (("minus", -size), ("still", 0.0), ("plus", size)):
        futures[word] = model.predict(clip, actions={**still, first: value}, seed=1)
        futures[word].save(Path(out) / f"{first}_{word}.mp4", force=True)
    for word in ("minus", "plus"):
        difference = np.abs(futures[word].future.astype(int) - futures["still"].future).mean()
        print(f"{first} {word}: {difference:.2f} of 255 away from no action, on average")


if __name__ == "__main__":
    main(*sys.argv[1:])
