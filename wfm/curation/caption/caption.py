"""Captions: a sentence about each clip, and where it comes from.

``attributes``: what a sidecar knows about the shot (a simulator's objects, motions, camera), put into words. Nothing is said
that the sidecar does not say. ``measured``: brightness, dominant colours, speed and pan, computed from the pixels, and worded
as such. ``endpoint:<model>`` and ``local:<hash>``: what a vision-language model said (`by_model`). Our own wording
varies between clips by their id, never by chance, so a clip's caption is the same every time it is made.

Every row carries the ``clip_sha256`` of the bytes it speaks about: a caption can never end up beside another clip unnoticed.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wfm.curation.caption.answer_cache import AnswerCache
from wfm.curation.caption.by_model import CaptionByModel
from wfm.curation.caption.caption_config import CaptionConfig
from wfm.curation.measure.frame_sampling import FrameSampling, still_indices
from wfm.curation.measure.motion import Motion, VectorSum
from wfm.curation.measure.small_frames import SmallFrames
from wfm.curation.one_pass import Wanted, fitted, one_pass
from wfm.curation.one_pass_consumers import Gather
from wfm.curation.per_clip import Fetch, or_skip, run_per_clip
from wfm.curation.rows import CaptionWindow
from wfm.parts.part import PartLike
from wfm.records import Caption, Clip

LONGEST_WORDING = 80
"Characters taken from one field of a sidecar: it comes from outside."


def caption_part(part: PartLike) -> tuple[dict[str, int], dict[str, int]]:
    """Caption the clips of one part; writes ``captions.parquet``, and ``caption_windows.parquet`` where a model was asked.

    Returns (counts, skipped by reason).
    """
    import pyarrow.parquet as pq

    if part.config.source in ("attributes", "measured"):
        return run_per_clip(part, lambda fetch: CaptionClip(part.config, fetch), Caption, "captions")
    said: list[CaptionWindow] = []
    cache = AnswerCache(part.open_store())
    with contextlib.ExitStack() as stack:

        def make(fetch: Fetch) -> CaptionByModel:
            return stack.enter_context(contextlib.closing(CaptionByModel(part.config, fetch, cache, said)))

        found = run_per_clip(part, make, Caption, "captions")
    pq.write_table(CaptionWindow.to_table(said), part.out / "caption_windows.parquet", compression="zstd")
    return found


class CaptionClip:
    """The step: one `Clip` -> its `Caption`. Skips a clip that has no attributes and cannot be decoded."""

    name = "caption"

    def __init__(self, config: CaptionConfig, fetch: Fetch) -> None:
        self.config = config
        self._fetch = fetch

    def __call__(self, item: Clip) -> Iterable[Caption]:
        """One row. Raises `Skip` with the decoder's reason code."""
        text = attribute_caption(item) if self.config.source == "attributes" else ""
        source = "attributes" if text else "measured"
        if not text:
            text = or_skip(measured_caption, self._fetch(item.path), still=item.is_image)
        return [Caption(clip_id=item.clip_id, clip_sha256=item.clip_sha256, caption=text, caption_source=source)]


def attribute_caption(clip: Clip) -> str:
    """A sentence from the clip's sidecar, or "" if it has none or nothing in it can be said."""
    try:
        attributes = json.loads(clip.attributes_json) if clip.attributes_json else None
    except json.JSONDecodeError:
        return ""
    if not isinstance(attributes, Mapping):
        return ""
    raw = attributes.get("objects")
    objects = [item for item in raw if isinstance(item, Mapping)] if isinstance(raw, list) else []
    camera, background = _plain(attributes.get("camera")), _plain(attributes.get("background"))
    if not objects and not camera and not background:
        return ""
    draw = _draws(clip.clip_id)
    objects = [objects[i] for i in sorted(range(len(objects)), key=lambda i: draw[i % len(draw)] * 7 + i)]
    wordings = (_scene_first, _camera_first, _two_sentences)
    return _sentence(wordings[draw[0] % len(wordings)](objects, camera, background))


def measured_caption(path: Path, *, still: bool = False) -> str:
    """A sentence from the clip's pixels, those of a still image if it is one. Raises `DataError` if they cannot be decoded."""
    config, vectors = FrameSampling(), VectorSum()
    small = SmallFrames(vectors, side=config.thumbnail_side, gap_seconds=0.0, camera=False)
    some = Wanted(
        "rgb24", fitted(config.thumbnail_side), frames=lambda clip: still_indices(config.stills, len(clip.seconds))
    )
    colours = Gather(some)
    one_pass(path, [vectors, small, colours])
    return describe(float(small.numbers().brightness.mean()), colours.pictures(), None if still else small.motion())


def describe(brightness: float, colours: np.ndarray, moved: Motion | None) -> str:
    """Mean brightness (0 to 1), uint8 pixels [..., 3] and motion (None: of a still image) in words: ``A bright video, mostly
    grey and blue. ...``"""
    light = (
        "very dark"
        if brightness < 0.1
        else "dark"
        if brightness < 0.3
        else "bright"
        if brightness > 0.6
        else "evenly lit"
    )
    names = dominant_colours(colours)
    what = f"A{'n' if light[0] in 'aeiou' else ''} {light} {'picture' if moved is None else 'video'}, mostly {_list(names)}."
    return what if moved is None else f"{what} {_movement(moved)}."


def dominant_colours(pixels: np.ndarray, *, most: int = 2) -> list[str]:
    """Names of the colours that cover the most of uint8 [..., 3] pixels: the first, and others above 15 %."""
    flat = pixels.reshape(-1, 3).astype(np.float32) / 255
    high, low = flat.max(axis=1), flat.min(axis=1)
    chroma = high - low
    red, green, blue = flat.T
    safe = np.maximum(chroma, 1e-6)
    hue = np.select(
        [high == red, high == green], [(green - blue) / safe % 6, (blue - red) / safe + 2], (red - green) / safe + 4
    )
    hues = np.array(["red", "orange", "yellow", "green", "cyan", "blue", "magenta", "red"])
    named = hues[np.searchsorted([0.25, 0.75, 1.25, 2.5, 3.25, 4.5, 5.7], hue, side="right")]
    names = np.where(
        chroma < 0.12 + 0.1 * high, np.select([high < 0.15, high > 0.85], ["black", "white"], "grey"), named
    )
    names = np.where(high < 0.15, "black", names)
    found, counts = np.unique(names, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    share = counts / counts.sum()
    return [str(found[i]) for rank, i in enumerate(order[:most]) if rank == 0 or share[i] > 0.15]


def _movement(moved: Motion) -> str:
    if moved.speed < 0.003:
        return "Hardly anything moves"
    pace = "slowly" if moved.speed < 0.08 else "fast" if moved.speed > 0.5 else "at a moderate speed"
    pan = float(np.hypot(moved.pan_x, moved.pan_y))
    if pan < 0.6 * moved.speed or moved.patch_minimum < 0.2 * moved.speed:
        return f"Things move {pace}"
    if abs(moved.pan_x) >= abs(moved.pan_y):
        content, camera = ("right", "left") if moved.pan_x > 0 else ("left", "right")
        return f"The whole picture moves {content} {pace}, as when a camera pans {camera}"
    content, camera = ("down", "up") if moved.pan_y > 0 else ("up", "down")
    return f"The whole picture moves {content} {pace}, as when a camera tilts {camera}"


def _scene_first(objects: Sequence[Mapping[str, Any]], camera: str, background: str) -> str:
    where = f"on {_place(background)} " if background and objects else ""
    doing = [_join(_noun(item), _plain(item.get("motion"))) for item in objects]
    scene = where + _list(doing) if doing else _place(background) if background else ""
    return f"{scene} as the camera {camera}" if scene and camera else scene or f"the camera {camera}"


def _camera_first(objects: Sequence[Mapping[str, Any]], camera: str, background: str) -> str:
    things = [
        f"{_noun(item)} that {motion}" if (motion := _plain(item.get("motion"))) else _noun(item) for item in objects
    ]
    view = _list(things) if things else _place(background)
    where = f" on {_place(background)}" if things and background else ""
    return f"the camera {camera} and shows {view}{where}" if camera else f"a view of {view}{where}"


def _two_sentences(objects: Sequence[Mapping[str, Any]], camera: str, background: str) -> str:
    nouns = [_noun(item) for item in objects]
    where = f" on {_place(background)}" if background and nouns else ""
    first = _list(nouns) + where if nouns else _place(background)
    moving = [
        f"the {_words(item, 'color', 'shape')} {motion}" for item in objects if (motion := _plain(item.get("motion")))
    ]
    rest = "; ".join(filter(None, [*moving, f"the camera {camera}" if camera else ""]))
    return ". ".join(_capital(part) for part in (first, rest) if part)


def _noun(item: Mapping[str, Any]) -> str:
    return _article(_words(item, "size", "color", "shape"))


def _place(background: str) -> str:
    if not background:
        return "an empty scene"
    return _article(background if " " in background else f"{background} background")


def _words(item: Mapping[str, Any], *fields: str) -> str:
    named = {**item, "shape": _plain(item.get("shape")) or "object"}
    return " ".join(filter(None, (_plain(named.get(field)) for field in fields)))


def _plain(value: Any) -> str:
    """One line of printable text of bounded length, or "" for anything that is not text."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())[:LONGEST_WORDING]


def _article(noun: str) -> str:
    if noun.split(" ")[0] in ("a", "an", "the"):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _join(noun: str, verb: str) -> str:
    return f"{noun} {verb}" if verb else noun


def _list(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return _capital(text.strip()).rstrip(".") + "."


def _draws(clip_id: str) -> bytes:
    return hashlib.sha256(f"caption:{clip_id}".encode()).digest()
