"""HDR pictures -> SDR: what a 203 cd/m2 white is in HDR comes out as a bright grey, highlights roll off to white.

    codes -> light [cd/m2] (PQ: SMPTE ST 2084; HLG: BT.2100 with the system gamma of its 1,000 cd/m2 reference display)
          -> one curve on the largest of R, G, B, the others in proportion (hue stays)
          -> BT.2020 primaries to BT.709, what lies outside clipped -> gamma 2.4 (BT.1886)

The curve is Reinhard's with a white point: y = x (1 + x / p^2) / (1 + x), x in units of the reference white (BT.2408: 203
cd/m2), p the peak: y(p) = 1. Sizes and times are the frame's own; every pixel is treated alike, so a clip does not flicker.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import av

REFERENCE_WHITE = 203.0
_HLG = 18
_HLG_PEAK = 1000.0
_HLG_GAMMA = 1.2
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
_2020_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def to_sdr(frame: "av.VideoFrame", peak_nits: float) -> np.ndarray:
    """An HDR frame (PQ or HLG by its tag) -> uint8 [H, W, 3], BT.709 for an SDR display. ``peak_nits`` becomes white."""
    rgb = frame.reformat(format="rgb48le", src_colorspace="BT2020").to_ndarray()  # uint16 [H, W, 3]
    if int(frame.color_trc) == _HLG:
        scene = _hlg_light()[rgb]
        luma = scene @ _LUMA_2020
        light = scene * (_HLG_PEAK * np.maximum(luma, 1e-6) ** (_HLG_GAMMA - 1))[..., None]
    else:
        light = _pq_light()[rgb]
    return sdr_codes(light, peak_nits)


def sdr_codes(light: np.ndarray, peak_nits: float) -> np.ndarray:
    """Light float32 [..., 3] in cd/m2, BT.2020 primaries -> SDR codes uint8 [..., 3], BT.709."""
    x = light / np.float32(REFERENCE_WHITE)
    brightest = np.maximum(x.max(axis=-1, keepdims=True), np.float32(1e-6))
    factor = (1 + brightest / np.float32((peak_nits / REFERENCE_WHITE) ** 2)) / (1 + brightest)
    out = np.clip((x * factor) @ _2020_TO_709.T, 0, 1)
    return np.rint(255 * out ** np.float32(1 / 2.4)).astype(np.uint8)


@lru_cache(maxsize=1)
def _pq_light() -> Any:
    """float32 [65536], cd/m2 of a code 0..65535 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = np.linspace(0, 1, 65536) ** (1 / m2)
    return (10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)).astype(np.float32)


@lru_cache(maxsize=1)
def _hlg_light() -> Any:
    """float32 [65536], light of the scene (0..1) of a code 0..65535 (ARIB STD-B67)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    code = np.linspace(0, 1, 65536)
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)
