"""What a model is asked: templates by name, from a file, or as text, with fields that each window fills.

prompt=av                     a preset
prompt=@prompts/mine.txt      a file; its text is taken when the run is planned, and is what the key and the spec hold
prompt="What moves in these {seconds} s?"      the text itself; a brace that is meant is written twice
"""

import json
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wfm.curation.caption.caption_windows import Window
from wfm.records import Clip

_PLAIN = (
    "Plain sentences in the order of time; nothing that is not to be seen, no guesses, no words about the video itself."
)
PRESETS = {
    "default": (
        "Describe this part of a video for someone who will make it again without seeing it: what is in it, what it looks "
        f"like, how things and people move and change, and what the camera does. {_PLAIN}"
    ),
    "av": (
        "These {seconds} seconds were filmed from a vehicle. Describe the road and its lanes, weather and light, what the "
        "vehicle itself does (keeps on, turns, brakes, changes lane, stands), every other road user that matters with where "
        f"it is and how it moves, signs and lights with what they show, and anything unusual or dangerous. {_PLAIN}"
    ),
    "robot": (
        "These {seconds} seconds show a robot at work. Describe the robot and its grippers or hands, the objects and where "
        "they lie, each action in turn (reaches, grasps, lifts, moves, places, lets go, fails) with its object and target, "
        f"what has changed at the end, and where the camera stands. {_PLAIN}"
    ),
}
STILL = (
    "Describe this still picture for someone who will make it again without seeing it: what is in it, where it stands, "
    "what it looks like, the light, and how the picture is taken. Plain sentences; nothing that is not to be seen, no "
    "guesses, no words about the picture itself."
)
"""What a model is asked of a still image in place of the preset ``default``."""
REWRITES = {
    "rewrite": (
        "Below is what was said of a part of a video. Say the same in other words, as {length}. Keep what matters most for "
        "seeing it: things, their looks, their motion, the camera. Add nothing.\n\n{caption}"
    )
}
LENGTHS = {
    "short": "one sentence of at most 20 words",
    "medium": "two or three sentences",
    "long": "five to eight sentences",
}
FIELDS = {
    "seconds": "length of the window [s]",
    "start_seconds": "where it begins in the clip [s]",
    "end_seconds": "where it ends in the clip [s]",
    "frames": "frames of the window",
    "window": "its number, from 1",
    "windows": "how many the clip has",
    "width": "of the clip [pixels]",
    "height": "of the clip [pixels]",
    "fps": "of the clip [1/s]",
    "attributes": "what the clip's sidecar says, as JSON; from outside, so it may say anything",
}
REWRITE_FIELDS = {"caption": "what was said", "length": "how long the answer is to be"}
LONGEST_ATTRIBUTES = 2000
"Characters taken of a sidecar."


def template(given: str, presets: Mapping[str, str], fields: Iterable[str]) -> str:
    """The text of a template: of a preset, of a file (``@path``), or `given` itself.

    Raises ValueError (which a config turns into its error) for an unknown preset or field, and a file that cannot be read.
    """
    text = given.strip()
    if text.startswith("@"):
        text = _from_file(text[1:])
    elif len(text.split()) < 2:
        if text not in presets:
            raise ValueError(f"no such template. Choices: {', '.join(presets)}; or @FILE; or the words themselves")
        text = presets[text]
    _check_fields(text, sorted(fields))
    return text


def _from_file(path: str) -> str:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the template cannot be read ({error}): give a text file in UTF-8 after the @") from None
    if len(text.split()) < 2 or text.startswith("@"):  # else it would be taken for a preset or a file when read back
        raise ValueError(f"the file says {text[:40]!r}: a template has at least two words, the first without @")
    return text


def _check_fields(text: str, choices: list[str]) -> None:
    try:
        found = [(name, spec, how) for _, name, spec, how in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"{error}: a brace that is meant is written twice, {{{{ or }}}}") from None
    for name, spec, how in found:
        if name not in choices or spec or how:
            raise ValueError(
                f"unknown field {{{name}}}. Choices: {', '.join('{' + choice + '}' for choice in choices)}; a brace that is "
                "meant is written twice, {{ or }}"
            )


def window_prompt(text: str, clip: Clip, window: Window, number: int, count: int) -> str:
    """A template filled for window `number` (from 0) of `count`. Times come from the clip's average rate. The preset
    ``default``, which asks for what moves, asks a still image for what is in it."""
    if clip.is_image and text == PRESETS["default"]:
        text = STILL
    fps = clip.num_frames / seconds if (seconds := clip.end_seconds - clip.start_seconds) > 0 else clip.fps
    start, end = (frame / fps if fps > 0 else 0.0 for frame in window)
    values: dict[str, Any] = {
        "seconds": f"{end - start:.1f}",
        "start_seconds": f"{start:.1f}",
        "end_seconds": f"{end:.1f}",
        "frames": window.end - window.start,
        "window": number + 1,
        "windows": count,
        "width": clip.width,
        "height": clip.height,
        "fps": f"{clip.fps:.4g}",
        "attributes": _attributes(clip),
    }
    return text.format(**values)


def rewrite_prompt(text: str, caption: str, length: str) -> str:
    """A rewriting template filled for a caption and one of `LENGTHS`."""
    return text.format(caption=caption, length=LENGTHS[length])


def _attributes(clip: Clip) -> str:
    try:
        return json.dumps(json.loads(clip.attributes_json), sort_keys=True)[:LONGEST_ATTRIBUTES]
    except json.JSONDecodeError:  # none, or not what it claims to be
        return "none"
