"""A still image -> the file that a data set keeps of it: its own bytes where they will do, else written anew.

They will do where the picture is upright, of 8 bits, grey or RGB, opaque, and in sRGB (`wfm.data.images.facts_of` says what of
this does not hold). Otherwise colours are brought to sRGB by the profile that is in the file (CMYK without one by Pillow's
plain rule), 16 bits are cut to their upper 8, what is transparent is laid on the ground that clips have, and EXIF's turn is
carried out; a jpg is then written as jpg of quality 95 with whole colours (4:4:4), all else as png. What is written anew
carries no metadata; what is kept as it is carries all that it had.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.curation.cut.alpha import laid_on

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

QUALITY = 95


@dataclasses.dataclass(frozen=True)
class Kept:
    """The file as it came out; sizes upright [pixels]."""

    path: Path
    width: int
    height: int
    transcode: str
    "``copy`` (the file's own bytes) or ``encode``."


def keep_image(source: Path, target: Path, ground: tuple[int, int, int], *, premultiplied: bool, most: int) -> Kept:
    """Write ``target`` with the ending of its format. ``ground``: RGB that transparent pictures are laid on; ``most``: pixels
    that it may have. Raises `VideoError`."""
    from PIL import Image

    from wfm.data.images import decode, facts_of, open_image

    target.parent.mkdir(parents=True, exist_ok=True)
    with open_image(source, maximum_pixels=most) as image:
        decode(image)
        facts = facts_of(image)
        changed = facts.turn.apply(_as_kept(image, ground, premultiplied)) if facts.changes else None
    if changed is None:
        path = target.with_suffix(f".{facts.format}")
        shutil.copyfile(source, path)
        return Kept(path, facts.width, facts.height, "copy")
    path = target.with_suffix(".jpg" if facts.format == "jpg" else ".png")
    if facts.format == "jpg":
        Image.fromarray(changed).save(path, "JPEG", quality=QUALITY, subsampling=0)
    else:
        Image.fromarray(changed).save(path, "PNG")
    return Kept(path, facts.width, facts.height, "encode")


def _as_kept(image: "ImageFile", ground: tuple[int, int, int], premultiplied: bool) -> np.ndarray:
    """uint8 [H, W, 3], sRGB, opaque, as stored (not turned)."""
    from wfm.data.images import has_alpha, profile_of, to_srgb

    profile, transparent = profile_of(image), has_alpha(image)
    plain: Any = _of_16_bits(image) if image.mode.startswith("I") else image
    alpha = np.asarray(plain.convert("RGBA"))[..., 3:] if transparent else None
    if profile is None:
        colour = plain.convert("RGB")
    elif str(profile.profile.xcolor_space).strip() == "GRAY":
        colour = to_srgb(plain.convert("L"), profile)
    else:
        colour = to_srgb(plain if plain.mode == "CMYK" else plain.convert("RGB"), profile)
    pixels = np.asarray(colour)
    return pixels if alpha is None else laid_on(pixels, alpha, ground, premultiplied=premultiplied)


def _of_16_bits(image: "ImageFile") -> Any:
    """A grey picture of 16 bits -> L, its upper 8 bits (Pillow's own conversion clips instead)."""
    from PIL import Image

    codes = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray((codes >> 8).clip(0, 255).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(codes == clear, 0, 255).astype(np.uint8)))
    return grey
