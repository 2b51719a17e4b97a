"""An item that crashes its process is found, listed and left out; killed runs and passing crashes blame nobody."""

import ctypes
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wfm.artifacts import Store
from wfm.curation.poison import TRIES, decode_in_own_process, forget, poisoned, trial_seconds, watch
from wfm.curation.step import Skip
from wfm.parts.workers import local_cluster, map_tasks

ITEMS = {name: f"{number:064x}" for number, name in enumerate(("good", "crash", "late"))}


def crashing_trial(path: Path) -> str:
    """Really crashes a process for the item of that name."""
    program = "import ctypes, sys; 'crash' in sys.argv[1] and ctypes.string_at(0)"
    code = subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode
    return f"decoding ended by {signal.Signals(-code).name}" if code < 0 else ""


def work(payload: tuple[str, str, list[str]]) -> dict[str, str]:
    """A part of several items, in a worker that crashes at one of them."""
    store_url, folder, names = payload
    store = Store.open(store_url)
    answers = {}
    for name in names:
        tries = Path(folder) / name
        with tries.open("a") as file:
            file.write("x")
        try:
            with watch(store, "step", ITEMS[name], Path(f"{name}.mp4"), name, trial=crashing_trial):
                if name == "crash" or (name == "late" and tries.read_text().count("x") <= 2):
                    ctypes.string_at(0)  # a real one: it reads address 0
                answers[name] = "done"
        except Skip as skip:
            answers[name] = skip.reason
    return answers


def test_the_crashing_item_is_found_in_its_part_and_the_rest_is_done(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    with local_cluster(workers=1, memory="1GiB") as address:
        part = (store.url, str(tmp_path), ["good", "crash", "late"])
        answer = dict(map_tasks(work, {"part": (*part[:2], ["good", "crash"])}, scheduler=address))["part"]
        assert answer == {"good": "done", "crash": f"poisoned: decoding ended by SIGSEGV, {TRIES} times"}
        assert (tmp_path / "crash").read_text() == "xx", "one worker was lost, not every one there is"
        (again,) = dict(map_tasks(work, {"part": (*part[:2], ["crash"])}, scheduler=address)).values()
        assert again["crash"].startswith("poisoned: "), "on the list it is not tried again"
        (late,) = dict(map_tasks(work, {"part": (*part[:2], ["late"])}, scheduler=address)).values()
        assert late == {"late": "done"}, "two crashes that pass are no poison"
    assert [(note.step, note.item, note.source) for note in poisoned(store)] == [("step", ITEMS["crash"], "crash")]
    assert len(forget(store)) == 1
    assert poisoned(store) == []
    assert not list(store.objects.walk("poison")), "nothing is left of items that went well"


def begin_and_die(store: Store, item: str, how: str) -> None:
    """A process that enters the watch and is killed there; ``how``: alone, or with the parent that started it."""
    program = f"""
import os, signal, sys, time
from pathlib import Path
from wfm.artifacts import Store
from wfm.curation.poison import watch
parent = os.getpid()
child = os.fork()
if child == 0:
    with watch(Store.open({store.url!r}), "step", {item!r}, Path("x.mp4"), "x", trial=lambda path: ""):
        if {how!r} == "with its run":
            os.kill(parent, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", program], check=False)


@pytest.mark.parametrize("times", [1, TRIES + 2])
def test_a_run_that_is_killed_again_and_again_poisons_nothing(tmp_path: Path, times: int) -> None:
    store = Store.open(tmp_path / "store")
    for _ in range(times):
        begin_and_die(store, "a" * 64, "with its run")
    with watch(store, "step", "a" * 64, Path("x.mp4"), "x", trial=lambda path: ""):
        pass
    assert poisoned(store) == []


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"[]", b'{"step": "step"}', b'{"x": 1}', b'{"worker": 3}'])
def test_a_note_that_is_damaged_counts_as_not_there(tmp_path: Path, data: bytes) -> None:
    """Before: JSONDecodeError, RecursionError or TypeError at every item of the step, and in `--retry-failed`."""
    store = Store.open(tmp_path / "store")
    store.objects.replace(f"poison/step/{'a' * 64}.json", data)
    store.objects.replace("poison/step/notes.txt", data)
    store.objects.replace("poison/notes.txt", data)
    assert poisoned(store) == []
    with watch(store, "step", "a" * 64, Path("x.mp4"), "x", trial=lambda path: ""):
        pass


def test_a_workers_number_that_is_a_path_is_not_followed(tmp_path: Path) -> None:
    """Before: `/proc/<pid>/stat` was opened with whatever the note had for a number."""
    store = Store.open(tmp_path / "store")
    note = {"step": "step", "item": "a" * 64, "source": "x", "worker": {"pid": "../../x", "machine": 1}}
    store.objects.replace(f"poison/step/{'a' * 64}.json", json.dumps(note).encode())
    with watch(store, "step", "a" * 64, Path("x.mp4"), "x", trial=lambda path: ""):
        pass


def test_an_exception_is_no_crash(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    with pytest.raises(ValueError, match="bad"), watch(store, "step", "b" * 64, Path("x"), "x"):
        raise ValueError("bad")
    assert not list(store.objects.walk("poison"))


def test_the_trial_takes_an_error_for_no_crash(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    assert decode_in_own_process(text) == ""


def test_a_trial_has_bounds_of_memory_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old trial of any file could take an hour and all memory."""
    import io

    import av

    from wfm.curation import poison

    small = tmp_path / "small.mp4"
    small.write_bytes(b"x" * 50_000)
    assert trial_seconds(small) == 121
    assert trial_seconds(tmp_path / "gone.mp4") == 120
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 2048, 2048, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(2048, 2048, "yuv420p")))
        container.mux(stream.encode(None))
    small.write_bytes(out.getvalue())
    assert decode_in_own_process(small) == ""
    # a decoder that asks for more than a trial has
    program = """
import sys
from wfm.curation import poison
from wfm.data import decode
decode.open_video = lambda path: bytearray(poison.TRIAL_BYTES + (1 << 20))
poison._decode(sys.argv[1])
"""
    code = subprocess.run([sys.executable, "-c", program, str(small)], check=False, capture_output=True).returncode
    assert code == poison._OUT_OF_MEMORY, "the old code had no limit to reach"
    monkeypatch.setattr(poison, "_LEAST_SECONDS", 0.001)
    monkeypatch.setattr(poison, "_SLOWEST", 1e12)
    assert decode_in_own_process(small).startswith("decoding took longer than 0.0")


_OPENS = """
import sys
from pathlib import Path
from wfm.artifacts import Store
from wfm.curation.poison import watch
from wfm.data.decode import open_video
path = Path(sys.argv[2])
with watch(Store.open(sys.argv[1]), "probe", "0" * 64, path, "a.mkv", seconds=2.0), open_video(path):
    pass
"""


def _element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def test_a_file_that_takes_for_ever_to_open_is_a_suspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library goes through all chapters for each one, and nothing can break it off: 200,000 of them, 2.5 MB, held a worker
    of the old code for over a minute; twice as many, four times as long."""
    chapters = (
        _element("B6", _element("73C4", number.to_bytes(4, "big")) + _element("91", b"\0"))
        for number in range(200_000, 0, -1)
    )
    header = _element("1A45DFA3", _element("4282", b"matroska"))
    path = tmp_path / "a.mkv"
    film = _element("1043A770", _element("45B9", b"".join(chapters))) + _element("1F43B675", _element("E7", b"\0"))
    path.write_bytes(header + _element("18538067", film))
    store = Store.open(tmp_path / "store")
    ended = subprocess.run([sys.executable, "-c", _OPENS, store.url, str(path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    monkeypatch.setattr("wfm.curation.poison._LEAST_SECONDS", 0.0)
    monkeypatch.setattr("wfm.curation.poison._SLOWEST", 1e7)  # a trial has a second or two
    with (
        pytest.raises(Skip, match="poisoned: decoding took longer than 1 s, 3 times"),
        watch(store, "probe", "0" * 64, path, "a.mkv"),
    ):
        pass
