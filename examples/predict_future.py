"""Predict what follows a clip, under an action or without one.

python examples/predict_future.py diffusion clip.mp4 next.mp4                     # the window that it was trained on
python examples/predict_future.py diffusion clip.mp4 next.mp4 moves.csv           # under the actions of a file
"""

import sys

import wfm


def main(name: str, clip: str, out: str, moves: str = "") -> None:
    model = wfm.load(name)
    for action, unit in zip(model.action_spec.names, model.action_spec.units, strict=True):
        print(f"it takes {action} [{unit}], {model.action_spec.rate_hz:g} rows a second")
    video = model.predict(clip, actions=moves or None, seed=0)
    print(video)  # Video(33 frames of 64x64 at 30/s: 9 given, 24 predicted)
    print(f"video.frames: {video.frames.dtype} {video.frames.shape}; the predicted ones alone: video.future")
    written = video.save(out, force=True)
    print(f"{written.video}, and how it was made: {written.sidecar}")


if __name__ == "__main__":
    main(*sys.argv[1:])
