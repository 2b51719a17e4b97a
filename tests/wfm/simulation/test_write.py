from pathlib import Path

import av
import numpy as np

from wfm.simulation.write import Mp4Writer, reencode


def frames(count: int = 20, size: int = 64) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.stack(
        [np.stack([x * 2 + 3 * k, y * 2, 128 + 0 * x], axis=-1).clip(0, 255).astype(np.uint8) for k in range(count)]
    )


def save(path: Path, pictures: np.ndarray, fps: int = 24) -> Path:
    with Mp4Writer(path, size=pictures.shape[1], fps=fps) as writer:
        for picture in pictures:
            writer.write(picture)
    return path


def read(path: Path) -> tuple[np.ndarray, list[float], str]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        got = [(frame.to_ndarray(format="rgb24"), float(frame.time)) for frame in container.decode(stream)]
        return np.stack([g[0] for g in got]), [g[1] for g in got], stream.codec_context.name


def test_what_is_written_is_read_back_at_its_times(tmp_path: Path) -> None:
    pictures = frames()
    got, times, codec = read(save(tmp_path / "a.mp4", pictures))
    assert codec == "h264"
    assert got.shape == pictures.shape
    assert np.abs(got.astype(float) - pictures).mean() < 4
    np.testing.assert_allclose(times, np.arange(20) / 24, atol=1e-4)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    assert save(tmp_path / "a.mp4", frames()).read_bytes() == save(tmp_path / "b.mp4", frames()).read_bytes()


def test_quality_follows_the_rate_factor(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (10, 64, 64, 3), dtype=np.uint8)
    sizes = []
    for crf in (10, 40):
        with Mp4Writer(tmp_path / f"{crf}.mp4", size=64, fps=24, crf=crf) as writer:
            for picture in noisy:
                writer.write(picture)
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


def test_a_copy_is_encoded_anew(tmp_path: Path) -> None:
    source = save(tmp_path / "a.mp4", frames())
    expected = {"libx264": "h264", "mpeg4": "mpeg4", "libvpx-vp9": "vp9"}
    for codec, name in expected.items():
        target = tmp_path / f"{codec}.mp4"
        reencode(source, target, codec=codec, crf=30, scale=0.75, fps=24)
        first = target.read_bytes()
        got, times, found = read(target)
        assert found == name
        assert got.shape == (20, 48, 48, 3)
        np.testing.assert_allclose(times, np.arange(20) / 24, atol=1e-3)
        reencode(source, target, codec=codec, crf=30, scale=0.75, fps=24)
        assert target.read_bytes() == first
