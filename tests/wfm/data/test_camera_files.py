"""Old films as they are found, those of Debian's package python3-mecavideo: every frame, in order, at its time."""

import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wfm.artifacts import Store
from wfm.curation.cut.split import SplitConfig, SplitVideo
from wfm.curation.source.ingest import IngestConfig, examine
from wfm.curation.source.listing import list_source
from wfm.data.decode import open_video
from wfm.data.probe import probe

PACKAGE = "python3-mecavideo"
SIX = {"Force_constante.avi": 26, "Principe_inertie.avi": 28, "balle1-vp9.avi": 295, "g1.avi": 16, "g2.avi": 16,
       "retroMars2018.avi": 25}  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's folder of films, fetched anew; a machine that cannot have it fails the test."""
    folder = tmp_path_factory.mktemp("debian")
    fetched = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True)
    assert fetched.returncode == 0, f"apt-get download {PACKAGE} needs Debian's packages: {fetched.stderr.strip()}"
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "x")], check=True, capture_output=True)
    return folder / "x/usr/share/pymecavideo/data/video"


def plainly(path: Path) -> list[np.ndarray]:
    """The pictures as the codec library's decoder gives them, whatever it says of time."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]


@pytest.mark.long
def test_every_frame_of_old_camera_files(films: Path, tmp_path: Path) -> None:
    """The old reader gave 14 of 26 frames of Force_constante.avi and 18 of 28 of Principe_inertie.avi."""
    assert {path.name for path in films.glob("*.avi")} == set(SIX)
    for name, count in SIX.items():
        shown = plainly(films / name)
        with open_video(films / name) as video:
            found = [(frame.to_ndarray(format="gray"), video.seconds(frame.pts)) for frame in video.frames()]
        assert len(shown) == len(found) == count, name
        assert all(np.array_equal(one, other) for one, (other, _) in zip(shown, found, strict=True)), name
        assert (np.diff([seconds for _, seconds in found]) > 0).all(), name
        assert found[0][1] == 0.0, name
        facts = probe(films / name)
        assert (facts.num_frames, facts.notes) == (count, ()), name
        store: Any = Store.open(tmp_path / "store")
        row, _ = examine(list_source(str(films / name), store).files[0], store, IngestConfig())
        step = SplitVideo(
            SplitConfig.parse({"shots": {"detector": "whole", "minimum_seconds": 0.5}}), store, store, tmp_path / name
        )
        assert sum(clip.num_frames for clip in step(row)) == count, name
        assert (step.decoded[0].num_frames, step.decoded[0].frames_damaged, step.skips) == (count, 0, []), name
