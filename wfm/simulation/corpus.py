"""A session as files: its videos with their sidecars, the copies and junk beside them, and what is known about each file."""

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from wfm.log import progress
from wfm.simulation.camera import pose_at
from wfm.simulation.config import SimulationConfig
from wfm.simulation.overlay import burn_in
from wfm.simulation.render import Renderer, renderer_for
from wfm.simulation.session import Session, Shot, plan_session, session_name
from wfm.simulation.sidecars import Sidecars, shot_times
from wfm.simulation.write import SCHEMA_VERSION, Mp4Writer, reencode, write_json


def simulate_session(config: SimulationConfig, index: int, out: Path) -> dict[str, int]:
    """Write session ``index`` under ``out`` and return counts (videos, frames, copies, junk videos).

    ``videos/ actions/ attributes/ truth/`` hold its files, ``truth/<session>.json`` what each is; the same bytes for the same
    (config, index), whatever ran before in this process.
    """
    session = plan_session(config, index)
    for folder in ("videos", "actions", "attributes", "truth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    names = [f"{session.name}_view_{view.index}" for view in session.views]
    _record(config, session, names, out)
    known = {name: _known(config, session, view) for view, name in enumerate(names)}
    known |= _copies(config, session, names, out)
    if session.has_static_video:
        known |= _static_video(config, session, out)
    write_json(out / "truth" / f"{session.name}.json", {"schema_version": SCHEMA_VERSION, "videos": known})
    frames = sum(shot.num_frames for shot in session.shots) * len(names)
    kinds = [entry["kind"] for entry in known.values()]
    return {
        "videos": len(known),
        "frames": frames,
        "duplicates": sum(kind.endswith("duplicate") for kind in kinds),
        "static_videos": kinds.count("static"),
    }


def simulate_corpus(config: SimulationConfig, out: Path) -> dict[str, int]:
    """All sessions under ``out/parts/<session>/`` with ``config.workers`` processes; returns the summed counts."""
    context = multiprocessing.get_context("spawn")  # OpenGL contexts do not survive a fork
    total: dict[str, int] = {}
    with (
        ProcessPoolExecutor(config.workers, mp_context=context) as pool,
        progress(config.sessions, "simulating", "sessions") as bar,
    ):
        futures = [
            pool.submit(simulate_session, config, index, out / "parts" / session_name(index))
            for index in range(config.sessions)
        ]
        for future in futures:
            for name, count in future.result().items():
                total[name] = total.get(name, 0) + count
            bar.advance(1)
    return total


def _record(config: SimulationConfig, session: Session, names: list[str], out: Path) -> None:
    """Render every shot once and film it from every view."""
    renderer = renderer_for(config.size, config.fps)
    sidecars = [Sidecars(config, session, view) for view in session.views]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                Mp4Writer(
                    out / "videos" / f"{name}.mp4",
                    size=config.size,
                    fps=config.fps,
                    crf=config.crf,
                    preset=config.preset,
                )
            )
            for name in names
        ]
        for number, shot in enumerate(session.shots):
            _film(renderer, config, number, shot, sidecars, writers)
    for name, rows in zip(names, sidecars, strict=True):
        rows.write(out, name)


def _film(
    renderer: Renderer,
    config: SimulationConfig,
    number: int,
    shot: Shot,
    sidecars: list[Sidecars],
    writers: list[Mp4Writer],
) -> None:
    if shot.kind == "black":
        picture = np.zeros((config.size, config.size, 3), dtype=np.uint8)
        for k in range(shot.num_frames):
            for rows, writer in zip(sidecars, writers, strict=True):
                writer.write(picture)
                rows.add(number, shot, k, np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
        return
    renderer.world.load(shot.scene)
    renderer.load(shot.scene)
    for k in range(shot.num_frames):
        if k and shot.kind != "frozen":
            renderer.world.advance(shot.commands.actions[k - 1, 2:], shot.commands.actor[k])
        renderer.update()
        positions = renderer.world.positions()
        for rows, writer in zip(sidecars, writers, strict=True):
            pose = pose_at(rows.view, shot.commands.azimuth[k], shot.commands.elevation[k])
            picture, visible = renderer.frame(pose)
            writer.write(burn_in(picture, shot.text) if shot.text else picture)
            rows.add(number, shot, k, positions, visible)


def _known(config: SimulationConfig, session: Session, view: int) -> dict[str, Any]:
    """What is true about one recorded video."""
    times = shot_times(session, config.fps)
    return {
        "kind": "world",
        "duplicate_of": "",
        "session_id": session.name,
        "view": view,
        "cuts_seconds": [start for start, _ in times[1:]],
        "shots": [
            {
                "kind": shot.kind,
                "start_seconds": start,
                "end_seconds": end,
                "camera": shot.commands.camera,
                "text": shot.text,
                "objects": [] if shot.kind == "black" else [item.color for item in shot.scene.objects],
            }
            for shot, (start, end) in zip(session.shots, times, strict=True)
        ],
    }


def _copies(config: SimulationConfig, session: Session, names: list[str], out: Path) -> dict[str, Any]:
    """Plain files without sidecars, as a careless archive would hold them."""
    copies: dict[str, Any] = {}
    if session.exact_duplicate_of is not None:
        source, name = names[session.exact_duplicate_of], f"{session.name}_copy"
        shutil.copyfile(out / "videos" / f"{source}.mp4", out / "videos" / f"{name}.mp4")
        copies[name] = _copy_entry(config, session, "exact_duplicate", session.exact_duplicate_of, source)
    if session.reencoded_duplicate_of is not None:
        source, name = names[session.reencoded_duplicate_of], f"{session.name}_upload"
        codec, crf, scale = session.reencoding
        reencode(
            out / "videos" / f"{source}.mp4",
            out / "videos" / f"{name}.mp4",
            codec=codec,
            crf=crf,
            scale=scale,
            fps=config.fps,
        )
        copies[name] = _copy_entry(config, session, "reencoded_duplicate", session.reencoded_duplicate_of, source)
    return copies


def _copy_entry(config: SimulationConfig, session: Session, kind: str, view: int, source: str) -> dict[str, Any]:
    return {**_known(config, session, view), "kind": kind, "duplicate_of": source, "session_id": "", "view": 0}


def _static_video(config: SimulationConfig, session: Session, out: Path) -> dict[str, Any]:
    """A file in which nothing ever moves: one picture of the first world, held."""
    name, shot, view = f"{session.name}_lobby", session.shots[0], session.views[0]
    renderer = renderer_for(config.size, config.fps)
    renderer.world.load(shot.scene)
    renderer.load(shot.scene)
    renderer.update()
    picture, _ = renderer.frame(pose_at(view, shot.commands.azimuth[0] + 40.0, shot.commands.elevation[0]))
    num_frames = round(config.seconds_per_shot[1] * config.fps)
    path = out / "videos" / f"{name}.mp4"
    with Mp4Writer(path, size=config.size, fps=config.fps, crf=config.crf, preset=config.preset) as writer:
        for _ in range(num_frames):
            writer.write(picture)
    entry = {"kind": "static", "start_seconds": 0.0, "end_seconds": num_frames / config.fps, "camera": "static"}
    return {
        name: {
            "kind": "static",
            "duplicate_of": "",
            "session_id": "",
            "view": 0,
            "cuts_seconds": [],
            "shots": [{**entry, "text": "", "objects": [item.color for item in shot.scene.objects]}],
        }
    }
