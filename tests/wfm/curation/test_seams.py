"""Seams of coding blocks, counted strip by strip in small integers, against the sentence that describes them."""

import numpy as np
import pytest

from wfm.curation.measure.quality import CODING_BLOCK, coded_luma, seams


def plain(luma: np.ndarray) -> float:
    """All at once, in whole numbers of any size."""
    answers = []
    for picture in (luma, luma.T):
        jump = np.abs(np.diff(picture.astype(np.int64), axis=1))
        beyond = np.maximum(2 * jump[:, 1:-1] - jump[:, :-2] - jump[:, 2:], 0).mean(axis=0)
        phases = np.array([np.median(beyond[k::CODING_BLOCK]) for k in range(CODING_BLOCK)])
        answers.append((phases.max() - np.median(phases)) / (np.median(phases) + 1))
    return float(min(answers))


@pytest.mark.parametrize("kind", ["grain", "black and white", "stripes"])
@pytest.mark.parametrize("size", [(32, 32), (63, 200), (131, 64), (130, 77), (67, 91)])
def test_strips_give_what_the_whole_picture_gives(kind: str, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(size[0]).integers(0, 256, size, dtype=np.uint8)
    if kind == "black and white":  # the largest jumps there are: sums must not overflow
        picture = (picture > 127).astype(np.uint8) * 255
    if kind == "stripes":
        picture[:, ::2], picture[:, 1::2] = 0, 255
    assert seams(picture) == plain(picture)


@pytest.mark.parametrize(("pixel_format", "codes"), [("yuv420p", 1), ("yuv444p10le", 4), ("yuvj422p", 1)])
def test_brightness_is_taken_as_it_was_coded(pixel_format: str, codes: int) -> None:
    import av

    luma = np.random.default_rng(0).integers(16, 236, (70, 90))
    frame = av.VideoFrame(90, 70, pixel_format)
    for index, plane in enumerate(frame.planes):
        kind = np.dtype("<u2" if codes > 1 else "u1")
        lines = np.frombuffer(plane, kind).reshape(plane.height, -1).copy()
        lines[:, : plane.width] = (luma if index == 0 else np.full((plane.height, plane.width), 128)) * codes
        plane.update(lines.tobytes())
    found = coded_luma(frame)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(int), luma, atol=0 if codes == 1 else 1)  # 10 bits are dithered to 8
