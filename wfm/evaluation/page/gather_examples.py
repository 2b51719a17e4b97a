"""The videos of the page: predictions beside truth and baselines, right beside shuffled action."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wfm.actions import ActionSpec
from wfm.data.motion import extrapolate, repeat_last
from wfm.evaluation.example_videos import encode_mp4, panel_grid, spread
from wfm.evaluation.generated import SHUFFLED, GeneratedVideos
from wfm.evaluation.page.cast import Cast
from wfm.evaluation.page.data import VideoPanels, short_source
from wfm.evaluation.page.words import signed
from wfm.evaluation.results import gain_by_window
from wfm.evaluation.schema import Metrics

SCALE = 3
SUBSET_NOTES = {"fixed_rate": "fixed rate", "changing_action": "action changes", "static": "camera rests"}


@dataclass(frozen=True)
class Judged:
    """One model: its figures, the rows behind them, its videos and the artifact they lie in."""

    metrics: Metrics
    rows: list[dict[str, Any]]
    """One a (window, set of videos), see `report`."""
    made: GeneratedVideos | None
    generated_key: str


def prediction_videos(judged: Sequence[Judged], number: int) -> list[VideoPanels]:
    """Windows beside each other under every model and baseline, from the worst gain of the first model to the best."""
    shown = [one for one in judged if one.made is not None]
    if not shown or not number:
        return []
    first, cast = shown[0], Cast([one.metrics for one in judged])
    made = first.made
    assert made is not None
    gains = gain_by_window(first.rows, first.metrics.headline_variant)
    ranks = np.argsort(np.argsort(-gains, kind="stable"))
    return [_prediction(cast, shown, made, window, int(ranks[window]), len(gains)) for window in spread(gains, number)]


def _prediction(
    cast: Cast, shown: list[Judged], made: GeneratedVideos, window: int, rank: int, count: int
) -> VideoPanels:
    sample_id, given = str(made.samples[window]["sample_id"]), made.past_frames
    panels, labels, notes = [made.truth[window]], ["Truth"], [f"rank {rank + 1} of {count}"]
    for one in shown:
        place = _place(one, sample_id)
        if place is None or one.made is None:
            continue
        gain = gain_by_window(one.rows, one.metrics.headline_variant)[place]
        notes.append(f"{cast.title(one.metrics.family)} {signed(gain)} dB")
        # Six panels are what a phone can show: the mean of the first model only.
        wanted = [one.metrics.headline_variant, *(["mean"] if "mean" in one.made.variants and one is shown[0] else [])]
        for name in wanted:
            panels.append(one.made.videos[name][place])
            labels.append(cast.panel(one.metrics.family, name))
    past = made.truth[window : window + 1, :given]
    ahead = made.truth.shape[1] - given
    if given > 1:
        panels.append(np.concatenate([past[0], extrapolate(past, ahead)[0]]))
        labels.append("Optical flow")
        notes.append(f"flow {signed(gain_by_window(shown[0].rows, 'flow')[window])} dB")
    panels.append(np.concatenate([past[0], repeat_last(past, ahead)[0]]))
    labels.append("Last frame")
    row = next(row for row in shown[0].rows if row["sample_id"] == sample_id)
    notes += [note for name, note in SUBSET_NOTES.items() if name in row["subsets"]]
    return _video(
        panels,
        labels,
        3 if len(panels) > 4 else 2,
        made,
        title=describe_actions(made.actions[window, given - 1 : -1], made.spec),
        notes=notes,
        trace=trace(made, window, [one.generated_key for one in shown]),
    )


def action_videos(judged: Sequence[Judged], number: int) -> list[VideoPanels]:
    """Truth, right action and shuffled action of `number` windows a model, evenly by how much the right one gains."""
    found, cast = [], Cast([one.metrics for one in judged])
    for one in judged:
        made = one.made
        if made is None or SHUFFLED not in made.videos or not one.metrics.action_sensitivity:
            continue
        given, head = made.past_frames, one.metrics.headline_variant
        differs = np.abs(made.actions - made.shuffled_actions)[:, given - 1 : -1].max(axis=(1, 2)) > 1e-6
        known = np.flatnonzero(differs)
        if not len(known):
            continue
        gains = gain_by_window(one.rows, head, over=SHUFFLED)[known]
        ranks = np.argsort(np.argsort(-gains, kind="stable"))
        for place in spread(gains, number, ends=False):
            window = int(known[place])
            right, other = made.actions[window, given - 1 : -1], made.shuffled_actions[window, given - 1 : -1]
            found.append(
                _video(
                    [made.truth[window], made.videos[head][window], made.videos[SHUFFLED][window]],
                    ["Truth", "Right action", "Shuffled action"],
                    3,
                    made,
                    title=f"{cast.title(made.family)}: {compare_actions(right, other, made.spec)}",
                    notes=[
                        f"rank {int(ranks[place]) + 1} of {len(known)}",
                        f"right over shuffled {signed(gains[place])} dB",
                    ],
                    trace=trace(made, window, [one.generated_key]),
                )
            )
    return found


def _place(one: Judged, sample_id: str) -> int | None:
    """Where a window stands among those of another model, or None."""
    if one.made is None:
        return None
    return next((i for i, sample in enumerate(one.made.samples) if str(sample["sample_id"]) == sample_id), None)


def _video(
    panels: list[np.ndarray], labels: list[str], columns: int, made: GeneratedVideos, **words: Any
) -> VideoPanels:
    grid = panel_grid(panels, columns=columns, scale=SCALE)
    return VideoPanels(
        mp4_base64=base64.b64encode(encode_mp4(grid, made.fps)).decode(),
        last_jpeg_base64=base64.b64encode(_jpeg(grid[-1])).decode(),
        labels=labels,
        columns=columns,
        width=grid.shape[2],
        height=grid.shape[1],
        frames=grid.shape[0],
        past_frames=made.past_frames,
        fps=made.fps,
        **words,
    )


def _jpeg(frame: np.ndarray) -> bytes:
    """One frame [H, W, 3], uint8, as JPEG: what a card shows where nothing plays."""
    import cv2

    done, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise ValueError(f"a frame of shape {frame.shape} could not be written as JPEG")
    return bytes(data.tobytes())


def trace(made: GeneratedVideos, window: int, keys: list[str]) -> list[str]:
    """From a generated video back to the file it was predicted from."""
    sample = made.samples[window]
    start = float(sample["start_seconds"])
    end = start + made.truth.shape[1] / float(sample["fps"])
    made_by = ", ".join(key[:10] for key in keys if key)
    return [
        f"generated window {sample['sample_id']}" + (f" in {made_by}" if made_by else ""),
        f"{made.split} clip {str(sample['clip_id'])[:16]} of session {sample['session_id']}",
        f"{start:.2f}–{end:.2f} s of {short_source(str(sample['source']))}",
    ]


def quantity(value: float) -> str:
    """An action's value in three digits with a true minus; zero has no sign."""
    return "0" if abs(value) < 5e-4 else f"{value:+.3g}".replace("-", "−")


def _phrase(name: str, unit: str, values: np.ndarray, scale: float) -> str:
    """One action in words: held at a value, or changing between two."""
    low, high, words = float(values.min()), float(values.max()), name.replace("_", " ")
    if high - low > 0.05 * scale:
        return f"{words} {quantity(low)} to {quantity(high)} {unit}"
    return f"{words} {quantity(float(values.mean()))} {unit}"


def describe_actions(actions: np.ndarray, spec: ActionSpec) -> str:
    """What acts in a window [T, A], in words: the first component that does anything, and how many more do."""
    if not spec.width:
        return "No actions known"
    busy = [k for k in range(spec.width) if np.abs(actions[:, k]).max() > 0.05 * spec.scale[k]]
    if not busy:
        return "No action"
    first = busy[0]
    text = _phrase(spec.names[first], spec.units[first], actions[:, first], spec.scale[first])
    return text[:1].upper() + text[1:] + (f", {len(busy) - 1} more" if len(busy) > 1 else "")


def compare_actions(right: np.ndarray, other: np.ndarray, spec: ActionSpec) -> str:
    """The component in which two action tracks [T, A] differ most, in words."""
    scale = np.asarray(spec.scale)
    most = int((np.abs(right - other) / scale).mean(axis=0).argmax())
    values = [quantity(float(track[:, most].mean())) for track in (right, other)]
    return f"{spec.names[most].replace('_', ' ')} {values[0]} against {values[1]} {spec.units[most]}"
