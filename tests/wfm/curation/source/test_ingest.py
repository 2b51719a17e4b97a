"""Every file becomes a row: readable with its facts, or not with its reason; equal bytes meet."""

import os
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from wfm.artifacts import Store
from wfm.curation.source import ingest
from wfm.curation.source.ingest import IngestConfig, examine, mark_duplicates
from wfm.curation.source.listing import list_source
from wfm.curation.step import reason_code
from wfm.data.codec_names import MissingDecoder
from wfm.records import Video

Writer = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def row_of(path: Path, store: Store, **config: object) -> Video:
    (file,) = list_source(str(path)).files
    return examine(file, store, IngestConfig.parse(config))[0]


def test_a_readable_video_has_its_facts(tmp_path: Path, write_video: Writer, store: Store) -> None:
    path = write_video(tmp_path / "a b\n'é.mp4", rotation=90)
    row = row_of(path, store)
    assert (row.status, row.reason, row.source, row.name) == ("ok", "", str(path), path.name)
    assert (row.width, row.height, row.rotation_degrees, row.num_frames) == (72, 96, 270, 48)
    assert (row.codec, row.pixel_format, row.has_audio, row.variable_frame_rate) == ("h264", "yuv420p", False, False)
    assert row.fps == pytest.approx(24)
    assert row.session_id == row.video_id
    assert len(row.video_id) == 64
    assert row.size_bytes == path.stat().st_size


def test_strange_but_sound_videos_are_ok(tmp_path: Path, write_video: Writer, store: Store) -> None:
    made = {
        "vfr": write_video(tmp_path / "vfr.mp4", times=np.cumsum([1, 3] * 24).tolist(), time_base=Fraction(1, 48)),
        "ten": write_video(tmp_path / "ten.mp4", pixel_format="yuv420p10le"),
        "odd": write_video(
            tmp_path / "odd.mkv", np.zeros((8, 33, 57, 3), np.uint8), codec="ffv1", pixel_format="yuv444p"
        ),
    }
    rows = {name: row_of(path, store) for name, path in made.items()}
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys(made, "ok")
    assert rows["vfr"].variable_frame_rate
    assert rows["ten"].pixel_format == "yuv420p10le"
    assert (rows["odd"].width, rows["odd"].height) == (57, 33)


def test_every_bad_file_is_a_row_with_its_reason(
    bad_files: dict[str, Path], bad_codes: dict[str, str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_TRY_PAUSE_SECONDS", 0.0)
    listing = list_source(str(next(iter(bad_files.values())).parent))
    rows = [examine(file, store, IngestConfig())[0] for file in listing.files]
    assert {row.name: reason_code(row.reason) for row in rows} == bad_codes
    assert {row.status for row in rows} == {"failed"}
    assert all(len(row.reason) > len(reason_code(row.reason)) + 5 for row in rows), "a reason has words too"
    assert "Input/output error" in next(row.reason for row in rows if row.name == "broken disk.mp4")
    has_id = {row.name: bool(row.video_id) for row in rows}
    assert has_id["text.mp4"]
    assert not has_id["fifo.mp4"]


@pytest.mark.parametrize(("container", "codec", "tag", "missing"), [("mp4", "libx264", b"avc1", b"evc1")])
def test_a_decoder_that_is_missing_here_ends_the_run_with_its_name(
    tmp_path: Path, write_video: Writer, store: Store, container: str, codec: str, tag: bytes, missing: bytes
) -> None:
    path = write_video(tmp_path / f"a.{container}", codec=codec)
    data = path.read_bytes()
    assert tag in data
    path.write_bytes(data.replace(tag, missing))  # EVC: a standard that this build of the codec library cannot decode
    with pytest.raises(MissingDecoder, match="no decoder for the codec 'evc'") as raised:
        row_of(path, store)
    assert raised.value.outcome == "wrong_input"
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value), "it crosses from a worker"


def test_a_damaged_header_is_no_missing_decoder(tmp_path: Path, write_video: Writer, store: Store) -> None:
    """One bad file must not end the run: the decoder of what its header names is here."""
    path = write_video(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    data[data.find(b"stsd") - 5] ^= 0x55  # the length of the box that describes the codec
    path.write_bytes(data)
    row = row_of(path, store)
    assert row.status == "failed"
    assert row.reason.startswith("decode_error: its header names h264, but is damaged")


def test_a_disk_that_stammers_is_asked_again(
    tmp_path: Path, write_video: Writer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4")
    whole, tries = ingest.fetch_source, []

    def stammering(*arguments: object, **named: object) -> tuple[Path, str]:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(5, "Input/output error")
        return whole(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest, "_TRY_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(ingest, "fetch_source", stammering)
    assert row_of(path, store).status == "ok"
    assert len(tries) == 3
    tries.clear()
    monkeypatch.setattr(ingest, "_TRIES", 2)
    assert row_of(path, store).reason == "unreadable: Input/output error"


def test_a_file_that_changes_under_our_hands_is_told(tmp_path: Path, write_video: Writer, store: Store) -> None:
    path = write_video(tmp_path / "a.mp4")
    (file,) = list_source(str(path)).files
    os.utime(path, ns=(7, 7))
    assert reason_code(examine(file, store, IngestConfig())[0].reason) == "changed_while_read"


def test_limits_are_the_configs(tmp_path: Path, write_video: Writer, store: Store) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert reason_code(row_of(path, store, minimum_frames=49).reason) == "too_short"
    assert row_of(path, store, minimum_frames=48).status == "ok"
    assert reason_code(row_of(path, store, maximum_pixels=72 * 96 - 1).reason) == "too_large"


def test_a_wrong_sidecar_fails_its_video_instead_of_being_dropped(
    tmp_path: Path, write_video: Writer, store: Store
) -> None:
    path = write_video(tmp_path / "a.mp4")
    (tmp_path / "a.actions.parquet").write_bytes(b"text")
    row = row_of(path, store)
    assert (row.status, reason_code(row.reason)) == ("failed", "bad_sidecar")
    assert "a.actions.parquet" in row.reason


def video(name: str, video_id: str = "1" * 64, **known: str) -> Video:
    return Video(source=f"/in/{name}", name=name, video_id=video_id, **known)  # type: ignore[arg-type]


def test_of_equal_bytes_the_first_by_name_is_kept() -> None:
    rows = mark_duplicates([video("c.mp4"), video("a.mp4"), video("b.mp4", "2" * 64), video("d.mp4")])
    assert [(row.name, row.status) for row in rows] == [
        ("a.mp4", "ok"),
        ("b.mp4", "ok"),
        ("c.mp4", "duplicate"),
        ("d.mp4", "duplicate"),
    ]
    assert rows[2].reason == "duplicate_bytes: same bytes as /in/a.mp4"


def test_a_copy_without_sidecars_never_replaces_the_original() -> None:
    rows = mark_duplicates([video("z.mp4", actions="actions/x.parquet"), video("a.mp4")])
    assert [(row.name, row.status) for row in rows] == [("a.mp4", "duplicate"), ("z.mp4", "ok")]


def test_broken_files_with_equal_bytes_keep_their_own_reason() -> None:
    rows = mark_duplicates(
        [video("a.mp4", status="failed", reason="truncated: x"), video("b.mp4", status="failed", reason="truncated: x")]
    )
    assert [row.status for row in rows] == ["failed", "failed"]
