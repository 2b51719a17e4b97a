"""Still images: what their headers say, what is done to colours and turns, and what is refused before it costs anything."""

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from wfm.curation.cut.stills import Kept, keep_image
from wfm.data.containers import VideoError
from wfm.data.images import decode, facts_of, format_of, open_image, read_image
from wfm.data.signatures import image_format, image_member, is_video

PICTURE = np.random.default_rng(3).integers(0, 256, (5, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def other_profile() -> bytes:
    """sRGB with red and green exchanged: a profile by which a pure red is shown as green."""
    data = bytearray(SRGB)
    places = {bytes(data[k : k + 4]): k for k in range(132, 132 + 12 * struct.unpack(">I", data[128:132])[0], 12)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


def write(path: Path, image: Image.Image, kind: str = "PNG", **how: Any) -> Path:
    image.save(path, kind, **how)
    return path


def kept(
    path: Path, *, premultiplied: bool = False, ground: tuple[int, int, int] = (0, 0, 0)
) -> tuple[Kept, np.ndarray]:
    made = keep_image(path, path.parent / "kept" / path.stem, ground, premultiplied=premultiplied, most=2**26)
    return made, read_image(made.path)


def changes(path: Path) -> tuple[str, ...]:
    with open_image(path) as image:
        decode(image)
        return facts_of(image).changes


def code_of(path: Path, **how: Any) -> str:
    try:
        with open_image(path, **how) as image:
            decode(image)
    except VideoError as error:
        return error.code
    return ""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("number", range(10))
def test_a_turn_is_carried_out_as_viewers_do(tmp_path: Path, number: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = number  # 0 and 9 mean nothing
    path = write(tmp_path / "a", Image.fromarray(PICTURE), kind, exif=exif)
    made, shown = kept(path)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert made.transcode == ("encode" if 2 <= number <= 8 else "copy")
    assert (made.height, made.width) == shown.shape[:2] == expected.shape[:2]
    assert np.abs(shown.astype(int) - expected).mean() < (3 if kind == "JPEG" else 0.01)
    if number in (5, 6, 7, 8):
        assert (
            np.abs(np.asarray(Image.fromarray(PICTURE).resize(expected.shape[1::-1])).astype(int) - shown).mean() > 20
        )


def test_colours_follow_their_profile_and_copies_of_srgb_change_nothing(tmp_path: Path) -> None:
    red = Image.new("RGB", (32, 32), (200, 10, 10))
    plain = write(tmp_path / "plain.png", red, icc_profile=SRGB)
    assert changes(plain) == ()
    assert kept(plain)[0].path.read_bytes() == plain.read_bytes()
    odd = write(tmp_path / "odd.png", red, icc_profile=other_profile())
    assert changes(odd) == ("colour profile",)
    made, shown = kept(odd)
    assert np.abs(shown.reshape(-1, 3).mean(axis=0) - (10, 200, 10)).max() < 3
    with Image.open(made.path) as image:
        assert "icc_profile" not in image.info
    broken = write(tmp_path / "broken.png", red, icc_profile=other_profile()[:200])
    assert changes(broken) == ()  # says nothing that can be read
    cmyk = Image.new("L", (32, 32), 90).convert("CMYK")
    wrong = write(tmp_path / "wrong.jpg", cmyk, "JPEG", icc_profile=other_profile())
    assert changes(wrong) == ("cmyk",)  # a profile of other channels than the picture's
    hollow = SRGB[:16] + b"CMYK" + SRGB[20:]  # says CMYK, and has no tables for it: it ended the stage
    empty = write(tmp_path / "hollow.jpg", cmyk, "JPEG", icc_profile=hollow)
    assert changes(empty) == ("cmyk",)
    assert kept(empty)[1].shape == (32, 32, 3)


@pytest.mark.parametrize("premultiplied", [False, True])
def test_what_is_transparent_is_laid_on_the_ground(tmp_path: Path, premultiplied: bool) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:] = (100, 50, 0, 128)
    pixels[:8] = (9, 200, 9, 0)
    path = write(tmp_path / "a.png", Image.fromarray(pixels))
    _, shown = kept(path, premultiplied=premultiplied, ground=(0, 0, 255))
    own = np.array([100, 50, 0]) * (1 if premultiplied else 128 / 255)
    assert np.abs(shown[12, 3] - (own + np.array([0, 0, 255]) * (127 / 255))).max() <= 1
    if not premultiplied:
        assert tuple(shown[2, 3]) == (0, 0, 255)
    two = np.where(np.arange(256).reshape(16, 16) < 128, 7, 90).astype(np.uint8)
    by_colour = write(tmp_path / "b.png", Image.fromarray(two), transparency=7)
    assert changes(by_colour) == ("alpha",)
    assert {tuple(p) for p in kept(by_colour, ground=(1, 2, 3))[1].reshape(-1, 3)} == {(1, 2, 3), (90, 90, 90)}


def test_every_depth_becomes_eight_bits(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    path = write(tmp_path / "grey16.png", Image.fromarray(ramp))
    assert changes(path) == ("16 bits",)
    assert np.array_equal(kept(path)[1][..., 1], ramp >> 8)
    bits = write(tmp_path / "bits.png", Image.fromarray(PICTURE).convert("1"))
    assert changes(bits) == ("1 bits",)
    assert set(np.unique(kept(bits)[1])) == {0, 255}
    palette = write(tmp_path / "palette.png", Image.fromarray(PICTURE).quantize(16), bits=4)
    assert changes(palette) == ("palette",)
    assert len({tuple(p) for p in kept(palette)[1].reshape(-1, 3)}) <= 16
    assert changes(write(tmp_path / "grey.jpg", Image.fromarray(PICTURE).convert("L"), "JPEG")) == ()


def test_first_bytes_say_what_a_file_is(tmp_path: Path) -> None:
    for kind, name in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")):
        path = write(tmp_path / "a.mp4", Image.fromarray(PICTURE), kind)
        head = path.read_bytes()[:4096]
        assert format_of(path) == image_format(head) == name
        assert not is_video(head)
    assert image_format(b"RIFF\0\0\0\0AVI ") == image_format(b"GIF89a") == image_format(b"") == ""
    assert format_of(tmp_path / "none") == ""
    assert image_member({"json": b"", "webp": b""}) == "webp"
    assert image_member({"json": b"", "mp4": b""}) == ""


def test_a_claim_is_refused_before_room_is_made_for_it(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        path = write(tmp_path / kind, Image.fromarray(PICTURE), kind)
        assert code_of(path) == ""
        assert code_of(path, maximum_pixels=40 * 48) == ""
        assert code_of(path, maximum_pixels=40 * 48 - 1) == "too_large"


@pytest.mark.alone
def test_a_bomb_is_given_no_room(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.png", Image.fromarray(PICTURE), "PNG").read_bytes())
    data[16:24] = struct.pack(">II", 2**20, 2**20)
    (tmp_path / "bomb").write_bytes(data)
    tracemalloc.start()
    assert code_of(tmp_path / "bomb") in ("too_large", "decode_error")  # the checksum of its header is wrong as well
    assert tracemalloc.get_traced_memory()[1] < 2**24


def test_text_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    said.add_text("a", "x" * 2**22, zip=True)
    path = write(tmp_path / "a.png", Image.fromarray(PICTURE), pnginfo=said)
    assert path.stat().st_size < 2**20
    assert code_of(path) == "decode_error"


def test_a_grey_corner_is_no_damage_and_rows_that_are_missing_are(tmp_path: Path) -> None:
    grey = PICTURE.copy()
    grey[-16:] = 128
    assert code_of(write(tmp_path / "grey.jpg", Image.fromarray(grey), "JPEG")) == ""
    for progressive in (False, True):
        whole = io.BytesIO()
        Image.fromarray(PICTURE).save(whole, "JPEG", quality=95, progressive=progressive)
        data = bytearray(whole.getvalue())
        place = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
        data[place : place + 2] = struct.pack(">H", 160)
        (tmp_path / "lies.jpg").write_bytes(data)
        assert code_of(tmp_path / "lies.jpg") == "truncated", progressive
    # the twin that asks nobody else takes it: three quarters of it are grey
    with open_image(tmp_path / "lies.jpg") as image:
        image.load()
        assert image.size == (48, 160)


def test_a_disk_that_fails_is_not_a_damaged_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", Image.fromarray(PICTURE))
    with pytest.raises(OSError, match="No space left"), open_image(path):
        raise OSError(28, "No space left on device")


def test_pictures_are_brought_to_a_size_by_area(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", Image.fromarray(PICTURE))
    assert np.array_equal(read_image(path, size=(5, 6)), PICTURE[::8, ::8])
    assert np.array_equal(read_image(path.read_bytes()), PICTURE)
