"""Burned-in text, the kind that curation should throw out."""

from functools import lru_cache

import numpy as np


def burn_in(picture: np.ndarray, text: str) -> np.ndarray:
    """``picture`` uint8 [H, W, 3] with a dark banner and white ``text`` across its lower third."""
    height, width = picture.shape[:2]
    letters = _letters(text, width, height // 5)
    band = picture.astype(np.float32)
    top = int(0.68 * height)
    rows = slice(top, top + letters.shape[0])
    banner = 0.25 * band[rows]
    band[rows] = banner + letters[..., None] * (255.0 - banner)
    return np.clip(np.rint(band), 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def _letters(text: str, width: int, height: int) -> np.ndarray:
    """Coverage of ``text`` in a banner [height, width], 0..1, as large as fits."""
    from PIL import Image, ImageDraw, ImageFont

    points = height
    while True:
        font = ImageFont.load_default(size=points)
        left, top, right, bottom = font.getbbox(text)
        if right - left <= 0.94 * width or points <= 6:
            break
        points -= 1
    image = Image.new("L", (width, height))
    place = ((width - (right - left)) / 2 - left, (height - (bottom - top)) / 2 - top)
    ImageDraw.Draw(image).text(place, text, fill=255, font=font)
    return np.asarray(image, dtype=np.float32) / 255.0
