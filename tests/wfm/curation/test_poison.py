"""An item that crashes its process is found, listed and left out; killed runs and passing crashes blame nobody."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wfm.artifacts import Store
from wfm.curation.poison import TRIES, forget, poisoned, watch
from wfm.curation.step import Skip
from wfm.curation.trial import decode_in_own_process, trial_seconds
from wfm.errors import TryAgain
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


_DIES = """
import ctypes, json, os, signal, sys, time
from pathlib import Path
from wfm import stopping
from wfm.artifacts import Store
from wfm.curation import poison
url, item, times, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
store, note = Store.open(url), "poison/step/" + item + ".json"

def die():
    if how.startswith("asked"):
        stopping.ask()
    if how.endswith("SIGSEGV"):
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.Signals[how.split()[-1]])

for number in range(times):
    child = os.fork()
    if child == 0:
        with poison.watch(store, "step", item, Path("x.mp4"), "x", trial=lambda path: ""):
            die()
    os.waitpid(child, 0)
    written = json.loads(store.objects.read(note))
    poison._wait_for_witness(written["worker"])
    written["worker"]["machine"] = "pod-%d" % number  # from here on it is another pod that looks at it
    store.objects.replace(note, json.dumps(written).encode())
"""


def begin_and_die(store: Store, item: str, times: int, how: str) -> None:
    """``times`` processes, each in a pod of its own, that enter the watch and die there by a signal."""
    root = str(Path(__file__).parents[3])
    program = [sys.executable, "-c", _DIES, store.url, item, str(times), how]
    subprocess.run(program, check=True, cwd=root, stderr=subprocess.DEVNULL, timeout=120)


def look_again(store: Store, item: str) -> None:
    with watch(store, "step", item, Path("x.mp4"), "x", trial=lambda path: ""):
        pass


@pytest.mark.parametrize(("times", "how"), [(15, "SIGKILL"), (15, "SIGTERM"), (TRIES, "asked SIGSEGV")])
def test_evictions_poison_nothing(tmp_path: Path, times: int, how: str) -> None:
    """The old code listed an innocent video after three: a worker of another pod was lost by its fault, always."""
    store = Store.open(tmp_path / "store")
    begin_and_die(store, "a" * 64, times, how)
    look_again(store, "a" * 64)
    assert not list(store.objects.walk("poison"))


def test_crashes_in_other_pods_poison_though_the_trial_goes_well(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    begin_and_die(store, "a" * 64, TRIES - 1, "SIGSEGV")
    begin_and_die(store, "b" * 64, TRIES, "SIGSEGV")
    look_again(store, "a" * 64)
    with pytest.raises(Skip, match=f"poisoned: {TRIES} workers died at it.*Segmentation fault"):
        look_again(store, "b" * 64)
    assert [note.item for note in poisoned(store)] == ["b" * 64]
    assert len(forget(store)) == 1
    assert not list(store.objects.walk("poison")), "nor of the deaths"


def test_a_crash_of_a_stage_under_the_guard_is_written_down(tmp_path: Path) -> None:
    """The guard ends whatever a stage leaves behind; the witness of a crash may finish first."""
    from pipelines.engines.subprocess_stage import run_process

    store = Store.open(tmp_path / "store")
    program = f"""
import ctypes
from pathlib import Path
from wfm.artifacts import Store
from wfm.curation.poison import watch
with watch(Store.open({store.url!r}), "step", "d" * 64, Path("x.mp4"), "x"):
    ctypes.string_at(0)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    ended = run_process(
        [sys.executable, "-c", program],
        environment=environment,
        on_line=print,
        stop=threading.Event(),
        grace_seconds=1.0,
    )
    assert ended.signal == signal.SIGSEGV
    names = store.objects.names("poison/step")
    assert [name.rsplit(".", 1)[1] for name in names] == ["death", "json"]


@pytest.mark.parametrize(
    ("limit_met", "killed", "left", "blamed"),
    [
        (1, 1, 10, True),
        (0, 1, 10, False),  # the whole machine was full: a neighbour's memory
        (0, 0, 10, False),  # an eviction
        (1, 1, 70, False),  # another process of this container holds most
    ],
)
def test_the_kernels_kill_blames_whoever_filled_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_met: int, killed: int, left: int, blamed: bool
) -> None:
    from wfm import container
    from wfm.curation.witness import _Seen

    monkeypatch.setattr(container, "own_group", lambda: tmp_path)
    monkeypatch.setattr(container, "resident", lambda pid: left << 20)
    (tmp_path / "memory.max").write_text(f"{100 << 20}")
    (tmp_path / "cgroup.procs").write_text("7\n")
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 2\n")
    seen = _Seen(pid=1)
    seen.hear(b'{"begins": "poison/step/x", "store": "", "options": {}, "memory": null}')
    events.write_text(f"low 0\noom {3 + limit_met}\noom_kill {2 + killed}\n")
    assert seen.verdict("poison/step/x").startswith("killed by the kernel") is blamed
    seen.hear(b"Fatal Python error: Bus error")
    assert bool(seen.verdict("poison/step/x")), "a crash of its own counts"
    seen.hear(b'{"begins": "poison/step/y", "store": "", "options": {}, "memory": null}')
    assert seen.verdict("poison/step/x") == "", "of two items at work nobody knows which it was"


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_is_read_in_both_versions(tmp_path: Path, version: int) -> None:
    from wfm import container

    first = {
        "memory.limit_in_bytes": "100",
        "memory.usage_in_bytes": "70",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 20",
        "memory.failcnt": "5",
        "memory.oom_control": "oom_kill_disable 0\noom_kill 2",
    }
    second = {
        "memory.max": "100",
        "memory.current": "70",
        "memory.stat": "inactive_file 20",
        "memory.events": "oom 5\noom_kill 2\noom_group_kill 0",
    }
    written = {1: first, 2: second}[version]
    for name, text in written.items():
        (tmp_path / name).write_text(text + "\n")
    assert (container.memory_limit(tmp_path), container.memory_used(tmp_path)) == (100, 50)
    assert container.kills(tmp_path) == (5, 2)
    (tmp_path / ("memory.max" if version == 2 else "memory.limit_in_bytes")).write_text(
        "max\n" if version == 2 else f"{2**63 - 4096}\n"
    )
    assert container.memory_limit(tmp_path) is None
    assert container.own_group().is_dir()


def hog(payload: tuple[str, str]) -> int:
    """Work on an item that takes ever more memory, though it decodes well."""
    with watch(Store.open(payload[0]), "step", payload[1], Path("x.mp4"), "x", trial=lambda path: ""):
        taken: list[bytes] = []
        while True:
            taken.append(b"x" * (1 << 20))
            time.sleep(0.003)


def test_an_item_that_takes_all_memory_of_its_worker_is_listed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    with local_cluster(workers=1, memory="400MiB") as address:
        with pytest.raises(TryAgain, match=r"lost its worker 3 times"):
            list(map_tasks(hog, {"part": (store.url, "c" * 64)}, scheduler=address))
        with pytest.raises(Skip, match=r"3 workers died at it.*of the memory it may have"):
            list(map_tasks(hog, {"part": (store.url, "c" * 64)}, scheduler=address))
    assert [note.item for note in poisoned(store)] == ["c" * 64]


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"[]", b'{"step": "step"}', b'{"x": 1}', b'{"worker": 3}'])
def test_a_note_that_is_damaged_counts_as_not_there(tmp_path: Path, data: bytes) -> None:
    """Before: JSONDecodeError, RecursionError or TypeError at every item of the step, and in `--retry-failed`."""
    store = Store.open(tmp_path / "store")
    store.objects.replace(f"poison/step/{'a' * 64}.json", data)
    store.objects.replace("poison/step/notes.txt", data)
    store.objects.replace("poison/notes.txt", data)
    store.objects.replace(f"poison/step/{'a' * 64}.20261122T122100123-9f3ac21b.death", data)
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


def test_a_trial_that_is_ended_from_outside_proves_nothing(tmp_path: Path, film: Callable[..., Path]) -> None:
    """The old code took the kernel's SIGKILL in a full pod, and the SIGTERM of an eviction, for crashes of the decoder."""
    path = film(tmp_path / "a.mp4", 1)
    for ends in ("SIGKILL", "SIGTERM", "SIGABRT"):
        program = f"import os, signal; os.kill(os.getpid(), signal.{ends})"
        verdict = decode_in_own_process(path, command=[sys.executable, "-c", program])
        assert verdict == ("decoding ended by SIGABRT" if ends == "SIGABRT" else ""), ends


@pytest.mark.alone  # what other tests leave in a process has ended a trial before its bounds
def test_a_trial_may_hold_what_a_worker_may(
    tmp_path: Path, film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "a.mp4", 1)
    assert decode_in_own_process(path, 2 << 30) == ""
    assert decode_in_own_process(path, 10 << 20) == f"decoding took more than {10 << 20:,} bytes of memory"
    group = tmp_path / "group"
    group.mkdir()
    monkeypatch.setattr("wfm.container.own_group", lambda: group)
    for used, verdict in ((1 << 20, True), (35 << 20, False)):
        (group / "memory.max").write_text(str(40 << 20))
        (group / "memory.current").write_text(str(used))
        assert bool(decode_in_own_process(path)) is verdict, "others hold most of this container: that proves nothing"


@pytest.mark.alone  # what other tests leave in a process has ended a trial before its bounds
def test_a_trial_has_bounds_of_memory_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old trial of any file could take an hour and all memory."""
    import io

    import av

    from wfm.curation import trial

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
from wfm.curation import trial
from wfm.data import decode
decode.open_video = lambda path: bytearray(trial.TRIAL_BYTES + (1 << 20))
trial._decode(sys.argv[1])
"""
    code = subprocess.run([sys.executable, "-c", program, str(small)], check=False, capture_output=True).returncode
    assert code == trial._OUT_OF_MEMORY, "the old code had no limit to reach"
    monkeypatch.setattr(trial, "_LEAST_SECONDS", 0.001)
    monkeypatch.setattr(trial, "_SLOWEST", 1e12)
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
    monkeypatch.setattr("wfm.curation.trial._LEAST_SECONDS", 0.0)
    monkeypatch.setattr("wfm.curation.trial._SLOWEST", 1e7)  # a trial has a second or two
    with (
        pytest.raises(Skip, match="poisoned: decoding took longer than 1 s, 3 times"),
        watch(store, "probe", "0" * 64, path, "a.mkv"),
    ):
        pass
