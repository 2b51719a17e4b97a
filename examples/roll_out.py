"""Go further into the future than the model's window: it is rolled out, window by window, and says so.

python examples/roll_out.py diffusion clip.mp4 long.mp4 2.5        # seconds
"""

import sys

import numpy as np

import wfm


def main(name: str, clip: str, out: str, seconds: str) -> None:
    model = wfm.load(name)
    video = model.predict(clip, seconds=float(seconds), seed=3)
    print(f"{video}\n{video.note}")
    step = model.card.num_frames - model.card.past_frames
    for window in range(video.windows):
        frames = video.future[window * step : (window + 1) * step].astype(float)
        print(f"    window {window}: contrast {np.std(frames):.1f} of 255")  # what fades shows here
    video.save(out, force=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
