"""How fast curation works through video on a CPU, how much memory it takes, and how cost grows.

    python -m tests.benchmarks.curation            # all; one JSON line each
    python -m tests.benchmarks.curation whole      # the whole path against plain decode + x264 encode (the physical limit)
    python -m tests.benchmarks.curation analysis   # one pass against one decode a step, the shape of other systems
    python -m tests.benchmarks.curation neural     # what each neural model adds to the whole path
    python -m tests.benchmarks.curation memory     # peak memory of the whole path and of one clip, 10 s to 10 min
    python -m tests.benchmarks.curation growth     # seconds of 100 to 1,600 clips

Video is generated: 720p, 24 frames a second, textures that pan at other speeds in each of three shots. Decoder and encoder use
one thread and the same preset on both sides; encoding is forced.
"""

import functools
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.benchmarks.paired import paired, print_line, time_of
from wfm.curation.cut import shots
from wfm.curation.cut.cut_ahead import CutAhead
from wfm.curation.cut.cutter import CutConfig, Cutter
from wfm.curation.cut.interlaced import FieldScan
from wfm.curation.cut.shot_detection import ShotConfig
from wfm.curation.cut.split import SplitConfig
from wfm.curation.embed.embed import FRAMES, SIDE, EmbedConfig, Embedded, Embedder
from wfm.curation.embed.embedders import digest
from wfm.curation.embed.signature import SignatureFrames
from wfm.curation.measure.frame_sampling import still_indices
from wfm.curation.measure.motion import VectorSum
from wfm.curation.measure.quality import Seams
from wfm.curation.measure.score import ScoreClip, ScoreConfig
from wfm.curation.measure.small_frames import SmallFrames
from wfm.curation.one_pass import Consumer, Geometry, Wanted, fitted, one_pass
from wfm.curation.one_pass_consumers import Cuts, Gather, spread_frames
from wfm.data.decode import open_video
from wfm.data.local import known_hash
from wfm.data.x264 import STEADY
from wfm.records import Clip

CUT = CutConfig(copy_codecs=())
SHOTS = ShotConfig(maximum_seconds=10.0)
SCORES = ScoreConfig(measures=True)
EMBED = EmbedConfig(signatures=True)
FPS = 24


def make_video(path: Path, *, seconds: int, height: int, width: int) -> Path:
    """Three shots of equal length; each pans over a texture of its own."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "20"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        count = seconds * FPS
        for shot in range(3):
            coarse = rng.integers(0, 256, (height // 12, width // 12, 3), np.uint8)
            texture = av.VideoFrame.from_ndarray(coarse, "rgb24").reformat(2 * width, 2 * height).to_ndarray()
            for index in range(shot * count // 3, (shot + 1) * count // 3):
                left, top = (index * (shot + 2)) % width, (index * (2 - shot)) % height
                view = np.ascontiguousarray(texture[top : top + height, left : left + width])
                frame = av.VideoFrame.from_ndarray(view, "rgb24")
                frame.pts = index
                out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def repeat(source: Path, target: Path, times: int) -> Path:
    """The same packets ``times`` times over."""
    with av.open(str(target), "w") as out:
        stream = None
        for turn in range(times):
            with av.open(str(source)) as file:
                video = file.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                for packet in file.demux(video):
                    if packet.size:
                        shift = turn * int(video.duration or 0)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        out.mux(packet)
    return target


def plain(path: Path, folder: Path) -> None:
    """Decode and encode, and nothing else, with the settings that clips are written with."""
    with av.open(str(path)) as source, av.open(str(folder / "plain.mp4"), "w") as out:
        video = source.streams.video[0]
        video.codec_context.thread_count = 1
        stream: Any = out.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = video.height, video.width, "yuv420p"
        stream.codec_context.thread_count, stream.codec_context.max_b_frames = 1, 0
        stream.codec_context.gop_size = FPS
        stream.options = {"crf": str(CUT.crf), "preset": CUT.preset, **STEADY}
        for frame in source.decode(video):
            frame.pict_type = 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def whole(
    path: Path,
    folder: Path,
    shot: ShotConfig = SHOTS,
    scores: ScoreConfig = SCORES,
    embed: EmbedConfig = EMBED,
) -> int:
    """The CPU path: shots, cutting, encoding, hashing, every score that needs no neural net, embedding, signatures. Returns
    clips."""
    split = SplitConfig()
    with open_video(path) as video:
        scan = FieldScan.of_stream(video.stream)
        cutter = Cutter(video, CUT, scan)
        ahead = CutAhead(
            cutter,
            lambda timeline, span: shots.spans_of_shot(timeline, span, shot)[0],
            lambda start, end: folder / f"{start}-{end}.mp4",
            split.held_bytes,
        )
        soon = shots.tells_soon(shot)
        timeline, cuts = shots.look(
            video,
            shot,
            ahead if soon else None,
            prefetch_bytes=0 if soon else split.prefetch_bytes,
            seen=scan.frame,
        )
        kept, _ = shots.spans(timeline, cuts, shot)
        for span in kept:
            start, end = int(timeline.pts[span.first]), timeline.end_of(span.last)
            count, target = span.last - span.first, folder / f"{start}-{end}.mp4"
            if (start, end) not in ahead.written:
                cutter.cut(start, end, count, target)
            look_at_clip(target, count, scores, embed)
            target.unlink()
    return len(kept)


def look_at_clip(path: Path, frames: int, scores: ScoreConfig = SCORES, embed: EmbedConfig = EMBED) -> None:
    """Score, embed and sign one clip file by the step that the stages run."""
    step = ScoreClip(scores, Path, [], Embedded(embedder(embed)))
    list(step(clip_row(path, known_hash(path), frames)))


@functools.cache
def embedder(config: EmbedConfig) -> Embedder:
    """Opened once, as the stages do."""
    return Embedder(config)


def look_at_clips(path: Path, count: int) -> None:
    """The same clip as many times: what differs is how much is behind it."""
    for _ in range(count):
        look_at_clip(path, FPS)


def clip_row(path: Path, digest: str, frames: int) -> Clip:
    """The row of a clip file: what the steps read of it is its path and its number of frames."""
    return Clip(
        clip_id=digest,
        clip_sha256=digest,
        video_id=digest,
        source="generated",
        session_id="",
        view="",
        start_seconds=0.0,
        end_seconds=frames / FPS,
        start_pts=0,
        end_pts=frames,
        time_base=f"1/{FPS}",
        num_frames=frames,
        fps=float(FPS),
        width=0,
        height=0,
        path=str(path),
        transcode="encode",
        action_path="",
        attributes_json="",
    )


def steps() -> list[list[Consumer]]:
    """Shots; motion, stillness and camera; quality; text; signature; embedding: what each step looks at."""

    def stills(geometry: Geometry) -> set[int]:
        return still_indices(SCORES.stills, len(geometry.seconds))

    vectors = VectorSum()
    large = Wanted("gray", fitted(SCORES.still_side, enlarge=False), frames=stills)
    return [
        [Cuts(content_detector, SHOTS.detection_side)],
        [vectors, SmallFrames(vectors, side=SCORES.thumbnail_side, gap_seconds=SCORES.gap_seconds, camera=True)],
        [Gather(large), Seams(stills)],
        [Gather(large)],
        [SignatureFrames()],
        [spread_frames(FRAMES, (SIDE, SIDE))],
    ]


def content_detector() -> Callable[[int, np.ndarray], list[int]]:
    from scenedetect import FrameTimecode
    from scenedetect.detectors import ContentDetector

    found = ContentDetector(threshold=SHOTS.content_threshold, min_scene_len=0)
    return lambda index, image: [cut.frame_num for cut in found.process_frame(FrameTimecode(index, 25.0), image)]


def run_whole(folder: Path) -> None:
    path = make_video(folder / "720p.mp4", seconds=6, height=720, width=1280)
    result = paired(lambda: whole(path, folder), lambda: plain(path, folder), pairs=3)
    print_line(
        benchmark="curation_whole_over_plain",
        target=0.6,
        clips=whole(path, folder),
        measures=SCORES.measures,
        signatures=EMBED.signatures,
        **result.as_dict(),
    )


def run_analysis(folder: Path) -> None:
    path = make_video(folder / "720p.mp4", seconds=6, height=720, width=1280)

    def together() -> None:
        one_pass(path, [consumer for step in steps() for consumer in step])

    def apart() -> None:
        for step in steps():
            one_pass(path, step)

    result = paired(together, apart, pairs=5)
    print_line(benchmark="curation_one_pass", target=2.0, steps=len(steps()), **result.as_dict())


def run_neural(folder: Path) -> None:
    """What each neural model adds to the whole path: seconds of work on one thread, and its share of the whole with it.

    The CLIP has the shape of ViT-B/32 and random weights, which cost what trained ones do.
    """
    import torch

    torch.set_num_threads(1)
    path = make_video(folder / "720p.mp4", seconds=6, height=720, width=1280)
    even = ShotConfig(minimum_seconds=1.0, maximum_seconds=2.0)  # the same clips, whichever cuts a detector finds
    adding: dict[str, dict[str, Any]] = {
        "nothing": {},
        "TransNetV2": {"shot": even.override(["detector=transnetv2"])},
        "PP-OCR": {"scores": SCORES.override(["text_detector=ppocr"])},
        "open-nsfw": {"scores": SCORES.override(["nsfw=true"])},
        "CLIP ViT-B/32": {"embed": clip_config(folder / "clip")},
    }
    adding["all of them"] = {
        "shot": adding["TransNetV2"]["shot"],
        "scores": SCORES.override(["text_detector=ppocr", "nsfw=true"]),
        "embed": adding["CLIP ViT-B/32"]["embed"],
    }
    seconds, clips = {}, {}
    for name, more in adding.items():
        call = functools.partial(whole, path, folder, **{"shot": even, **more})
        clips[name] = call()
        seconds[name] = min(time_of(call, 1, time.process_time) for _ in range(2))
    for name, found in seconds.items():
        share = 1 - seconds["nothing"] / found
        more = {"whole_seconds": round(found, 2), "share": round(share, 3), "clips": clips[name]}
        print_line(benchmark="curation_neural", model=name, **more)


def clip_config(folder: Path) -> EmbedConfig:
    """A CLIP's folder, its vision tower of the size of ViT-B/32."""
    import transformers

    transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig()).save_pretrained(folder)
    transformers.CLIPImageProcessor().save_pretrained(folder)
    return EmbedConfig(model="clip", weights=str(folder), weights_sha256=digest(folder), signatures=True)


def run_memory(folder: Path) -> None:
    """Videos of growing length, divided into clips, and single clips of that length. Each in a process of its own: a peak never
    falls again."""
    path = make_video(folder / "short.mp4", seconds=10, height=180, width=320)
    for of in ("video", "clip"):
        peaks = {}
        for times in (1, 6, 60):
            long = repeat(path, folder / "long.mp4", times)
            command = [sys.executable, "-m", "tests.benchmarks.curation", "peak", of, str(long)]
            peaks[10 * times] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["peak_mib"]
        growth = peaks[600] - peaks[10]
        print_line(benchmark="curation_memory", of=of, peak_mib_by_seconds=peaks, growth_mib=round(growth, 1))


def run_growth(folder: Path) -> None:
    path = make_video(folder / "clip.mp4", seconds=1, height=48, width=64)
    look_at_clip(path, FPS)
    counts = (100, 400, 1600)
    # Seconds of work, not of the clock: other programs on the machine do not count.
    seconds = [time_of(functools.partial(look_at_clips, path, count), 1, time.process_time) for count in counts]
    exponent = math.log(seconds[-1] / seconds[0]) / math.log(counts[-1] / counts[0])
    print_line(
        benchmark="curation_growth",
        target=1.05,
        seconds=dict(zip(counts, [round(s, 2) for s in seconds], strict=True)),
        exponent=round(exponent, 3),
    )


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["peak"]:
        of, path = arguments[1], Path(arguments[2])
        with tempfile.TemporaryDirectory() as name:
            whole(path, Path(name)) if of == "video" else look_at_clip(path, FPS)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print_line(peak_mib=round(peak, 1))
        return
    runs = {
        "whole": run_whole,
        "analysis": run_analysis,
        "neural": run_neural,
        "memory": run_memory,
        "growth": run_growth,
    }
    for chosen in arguments or list(runs):
        with tempfile.TemporaryDirectory() as name:
            runs[chosen](Path(name))


if __name__ == "__main__":
    main(sys.argv[1:])
