"""Sound of any kind is kept in step, or the clip is kept without it and its row says so: never does sound end a run.

A film here shows 6 s and beeps at 1.0, 3.5 and 5.0 s; the clip that is looked at is that of 3 to 6 s.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wfm.artifacts import Store
from wfm.curation.cut.cutter import Written
from wfm.curation.cut.split import SplitConfig, SplitVideo
from wfm.data.local import known_hash
from wfm.records import Clip, Video

Cut = Callable[..., Written]
FPS, SECONDS = 10, 6
BEEPS = (1.0, 3.5, 5.0)


def beeping(rate: int, channels: int = 1, beeps: tuple[float, ...] = BEEPS) -> np.ndarray:
    """float32 [channels, samples] of 6 s."""
    time = np.arange(SECONDS * rate) / rate
    on = sum(((time >= beep) & (time < beep + 0.1)).astype(np.float32) for beep in beeps)
    return np.repeat((0.5 * on * np.cos(2 * np.pi * 1000 * time)).astype(np.float32)[None], channels, 0)


def packets_of(samples: np.ndarray, codec: str, rate: int, layout: str, out: Any) -> tuple[Any, list[Any]]:
    """(stream of ``out``, the encoded packets)."""
    stream: Any = out.add_stream(codec, rate=rate)
    stream.codec_context.layout = layout
    form = stream.codec_context.codec.audio_formats[0].name
    stream.codec_context.format = form
    if form.startswith(("s", "u")):
        kind = {"s16": np.int16, "s32": np.int32, "u8": np.uint8}[form.removesuffix("p")]
        span = 2 ** (8 * np.dtype(kind).itemsize - 1) - 1
        samples = (np.nan_to_num(samples) * span + (span + 1 if kind == np.uint8 else 0)).astype(kind)
    packets: list[Any] = []
    for start in range(0, samples.shape[1], 1024):
        piece = samples[:, start : start + 1024]
        if not form.endswith("p"):
            piece = piece.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format=form, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        packets += stream.encode(frame)
    return stream, packets + stream.encode(None)


def film(path: Path, *tracks: Callable[[Any], tuple[Any, list[Any]]]) -> Path:
    """Pictures as bright as their number, and tracks."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("mpeg4", rate=FPS)
        video.height, video.width, video.pix_fmt, video.gop_size = 48, 64, "yuv420p", FPS
        ready = [track(out) for track in tracks]
        packets = []
        for index in range(SECONDS * FPS):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * index, np.uint8), "rgb24")
            frame.pts = index
            packets += video.encode(frame)
        packets += video.encode(None)
        for stream, more in ready:
            for packet in more:
                packet.stream = stream
            packets += more
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return path


def track(
    codec: str,
    rate: int = 48000,
    layout: str = "mono",
    samples: np.ndarray | None = None,
    change: Callable[[list[Any]], list[Any]] = lambda packets: packets,
) -> Callable[[Any], tuple[Any, list[Any]]]:
    def make(out: Any) -> tuple[Any, list[Any]]:
        channels = av.AudioLayout(layout).nb_channels
        given = beeping(rate, channels) if samples is None else samples
        stream, packets = packets_of(given, codec, rate, layout, out)
        return stream, change(packets)

    return make


def heard(path: Path) -> tuple[list[float], list[float]]:
    """When beeps begin [s]: by the times of the frames, and by counting samples from the first one on."""
    by_time: list[float] = []
    by_count: list[float] = []
    count, last = 0, -1.0
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0].astype(float)) > 0.1)
            assert frame.pts is not None
            for place in loud:
                seconds = float(frame.pts * frame.time_base) + place / frame.sample_rate
                if seconds > last + 0.15:
                    by_time.append(seconds)
                    by_count.append((count + place) / frame.sample_rate)
                last = seconds
            count += frame.samples
    return by_time, by_count


def cut_second_half(cut: Cut, path: Path, target: Path) -> Written:
    written = cut(path, 3 * FPS, SECONDS * FPS, target, audio="keep")
    assert written.num_frames == 3 * FPS
    return written


ODD = {
    "192 kHz": track("pcm_s24le", 192000),
    "16 channels": track("pcm_s16le", 48000, "hexadecagonal"),
    "8 kHz": track("pcm_mulaw", 8000),
    "a rate of nobody": track("pcm_s16le", 37800),
    "bytes": track("pcm_u8", 44100),
    "what is not a number": track("pcm_f32le", samples=np.where(beeping(48000) == 0, np.nan, beeping(48000))),
}


@pytest.mark.parametrize("kind", ODD)
def test_any_kind_of_samples_becomes_aac_in_step(tmp_path: Path, cut_frames: Cut, kind: str) -> None:
    """Before, at 192 kHz, 37.8 kHz and for NaN: av.error.ArgumentError, which ended the run."""
    path = film(tmp_path / ("a.mov" if "number" not in kind else "a.mkv"), ODD[kind])
    assert cut_second_half(cut_frames, path, tmp_path / "clip.mp4").audio == "encode"
    for found in heard(tmp_path / "clip.mp4"):
        assert found == pytest.approx([0.5, 2.0], abs=0.004)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, "clip.mp4"])


def unknown(path: Path, number: int) -> Path:
    """The ``number``-th track of AAC gets a codec that nobody knows, as phones write since 2024."""
    data = path.read_bytes()
    at = -1
    for _ in range(number + 1):
        at = data.index(b"mp4a", at + 1)
    header = data.index(b"esds", at)
    path.write_bytes(data[:at] + b"apac" + data[at + 4 : header] + b"dapa" + data[header + 4 :])
    return path


@pytest.mark.parametrize(
    ("tracks", "hidden", "said", "beeps"),
    [
        (1, 0, "lost: a codec nobody knows gives no sound here", []),
        (2, 0, "copy: another track, a codec nobody knows gives no sound here", [0.5, 2.0]),
        (2, 1, "copy", [0.5, 2.0]),
    ],
)
def test_a_codec_nobody_knows_costs_no_clip(
    tmp_path: Path, tracks: int, hidden: int, said: str, beeps: list[float]
) -> None:
    """Before: AttributeError, 'NoneType' object has no attribute 'name', where it stood first or alone."""
    path = unknown(film(tmp_path / "a.mov", *[track("aac")] * tracks), hidden)
    store: Any = Store.open(tmp_path / "store")
    config = SplitConfig.parse({"shots": {"detector": "whole"}, "cut": {"audio": "keep"}})
    (clip,) = SplitVideo(config, store, store, tmp_path)(Video(source=str(path), name="a", video_id=known_hash(path)))
    assert isinstance(clip, Clip)
    assert (clip.audio, clip.num_frames) == (said, SECONDS * FPS)
    with av.open(str(tmp_path / clip.path)) as file:
        assert bool(file.streams.audio) == bool(beeps)
    if beeps:
        assert heard(tmp_path / clip.path)[0] == pytest.approx([1.0, 3.5, 5.0], abs=0.004)


def test_the_default_track_is_taken_first(tmp_path: Path, cut_frames: Cut) -> None:
    """Before: the first, whatever the file says."""
    from av.stream import Disposition

    def marked(at: float, mark: Disposition) -> Callable[[Any], tuple[Any, list[Any]]]:
        def make(out: Any) -> tuple[Any, list[Any]]:
            stream, packets = packets_of(beeping(48000, beeps=(at,)), "pcm_s16le", 48000, "mono", out)
            stream.disposition = mark
            return stream, packets

        return make

    path = film(tmp_path / "a.mkv", marked(4.0, Disposition.comment), marked(5.0, Disposition.default))
    cut_second_half(cut_frames, path, tmp_path / "clip.mp4")
    assert heard(tmp_path / "clip.mp4")[0] == pytest.approx([2.0], abs=0.004)


def without(first: float, last: float) -> Callable[[list[Any]], list[Any]]:
    return lambda packets: [p for p in packets if not first <= float(p.pts * p.time_base) < last]


def shifted(after: float, seconds: float) -> Callable[[list[Any]], list[Any]]:
    def change(packets: list[Any]) -> list[Any]:
        for packet in packets:
            if packet.pts * packet.time_base >= after:
                packet.pts = packet.dts = packet.pts + round(seconds / packet.time_base)
        return packets

    return change


@pytest.mark.parametrize(
    ("codec", "container", "kind"),
    [
        ("pcm_s16le", "mkv", "hole"),
        ("pcm_s16le", "mkv", "two holes"),
        ("pcm_s16le", "mkv", "overlap"),
        ("aac", "mp4", "hole"),
        ("libopus", "mkv", "hole"),
        ("libopus", "mkv", "overlap"),
    ],
)
def test_holes_are_silence_and_overlaps_are_trimmed(
    tmp_path: Path, cut_frames: Cut, codec: str, container: str, kind: str
) -> None:
    """Before, for a beep at 2.0 s: PCM at 0.997 s and 1.125 s; AAC at 0.989 s and Opus at 0.98 s by count of samples; an
    overlap left PCM at 2.0 s instead of 1.7 s, and ended the run (av.error.ArgumentError) for Opus."""
    changes = {
        "hole": without(3.9, 4.9),
        "two holes": lambda packets: without(3.7, 3.9)(without(4.1, 4.8)(packets)),
        "overlap": shifted(4.0, -0.3),
    }
    path = film(tmp_path / f"a.{container}", track(codec, change=changes[kind]))
    assert cut_second_half(cut_frames, path, tmp_path / "clip.mp4").audio == "encode"
    expected = [0.5, 1.7] if kind == "overlap" else [0.5, 2.0]
    for found in heard(tmp_path / "clip.mp4"):
        assert found == pytest.approx(expected, abs=0.004)


def test_sound_that_begins_late_and_ends_early(tmp_path: Path, cut_frames: Cut) -> None:
    """Silence at the beginning; before, the beep was the 0.108th second of the sound instead of the 0.5th, and a clip without
    a packet was an error."""
    change = lambda packets: without(5.5, 9)(without(0, 3.4)(packets))  # noqa: E731
    path = film(tmp_path / "a.mkv", track("pcm_s16le", change=change))
    assert cut_second_half(cut_frames, path, tmp_path / "clip.mp4").audio == "encode"
    assert heard(tmp_path / "clip.mp4")[1] == pytest.approx([0.5, 2.0], abs=0.004)
    path = film(tmp_path / "b.mkv", track("pcm_s16le", change=without(2.5, 9)))
    assert cut_second_half(cut_frames, path, tmp_path / "none.mp4").audio == "lost: pcm_s16le gives no sound here"
    with av.open(str(tmp_path / "none.mp4")) as file:
        assert not file.streams.audio


def test_sound_that_changes_its_rate_and_channels(tmp_path: Path, cut_frames: Cut) -> None:
    """Before: ValueError, Frame does not match AudioResampler setup."""
    rates = ((48000, "mono"), (44100, "stereo"), (32000, "mono"))
    pieces = []
    for number, (rate, layout) in enumerate(rates):
        with av.open(str(tmp_path / f"{number}.ts"), "w") as out:
            stream, packets = packets_of(beeping(rate, 1 + (layout == "stereo")), "mp2", rate, layout, out)
            begin, end = ((0, 3.2), (3.2, 4.5), (4.5, 9))[number]
            pieces += [p for p in packets if begin <= float(p.pts * p.time_base) < end]
            for packet in pieces:
                packet.stream = stream

    path = film(tmp_path / "a.ts", lambda out: (out.add_stream("mp2", rate=48000), pieces))
    assert cut_second_half(cut_frames, path, tmp_path / "clip.mp4").audio == "encode"
    for found in heard(tmp_path / "clip.mp4"):
        assert found == pytest.approx([0.5, 2.0], abs=0.03)  # an encoder of MP2 is 10 to 15 ms late


@pytest.mark.parametrize(("codec", "container"), [("libmp3lame", "mkv"), ("aac", "mkv"), ("flac", "mkv")])
def test_damaged_packets_are_silence(tmp_path: Path, cut_frames: Cut, codec: str, container: str) -> None:
    """Before: copied with the damage in them: av.error.InvalidDataError for whoever decoded the clip."""

    def damage(packets: list[Any]) -> list[Any]:
        spoiled = []
        for packet in packets:
            if 4.0 <= float(packet.pts * packet.time_base) < 4.6:
                bad = av.Packet(b"\x00" * packet.size)
                bad.pts, bad.dts, bad.time_base, bad.duration = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                    packet.duration,
                )
                packet = bad
            spoiled.append(packet)
        return spoiled

    path = film(tmp_path / f"a.{container}", track(codec, change=damage))
    assert cut_second_half(cut_frames, path, tmp_path / "clip.mp4").audio == "encode"
    by_time, by_count = heard(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as file:
        assert sum(frame.samples for frame in file.decode(audio=0)) >= 2.9 * 48000
    for found in (by_time, by_count):
        assert found == pytest.approx([0.5, 2.0], abs=0.03)  # an encoder of MP3 is 25 ms late


@pytest.mark.parametrize("kind", ["both", "longer", "none in the second"])
def test_sound_of_joined_pieces_goes_with_their_pictures(tmp_path: Path, kind: str) -> None:
    """Each piece has the clock of the first. Before: no beep was heard after the first joint, where sound was kept all the
    same: 12 ms of the first piece's last packet, and 2 s where its sound outlasts its pictures."""
    sound = beeping(48000)
    longer = np.concatenate([sound, sound[:, : 2 * 48000]], axis=1)
    first = film(tmp_path / "1.ts", track("aac", samples=longer if kind == "longer" else sound))
    second = film(tmp_path / "2.ts", *([] if kind == "none in the second" else [track("aac")]))
    third = film(tmp_path / "3.ts", track("aac"))
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(one.read_bytes() for one in (first, second, third)))
    config = SplitConfig.parse({"shots": {"detector": "whole"}, "cut": {"audio": "keep"}})
    store: Any = Store.open(tmp_path / "store")
    clips = list(
        SplitVideo(config, store, store, tmp_path)(Video(source=str(path), name="a", video_id=known_hash(path)))
    )
    assert [clip.num_frames for clip in clips] == [SECONDS * FPS] * 3
    for clip, silent in zip(clips, (False, kind == "none in the second", False), strict=True):
        assert (clip.audio.split(":")[0] in ("copy", "encode")) != silent
        if not silent:
            for found in heard(tmp_path / clip.path):
                assert found == pytest.approx(BEEPS, abs=0.03)
