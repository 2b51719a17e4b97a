"""What a stage prints goes into the store as it comes, whatever the store does."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from components.derivation import ROOT
from wfm.artifacts import Store

STAGE = """
import sys, time
from components.stage_log import StageLog
log = StageLog.begin()
log.ship_to(sys.argv[1], sys.argv[2], "toy", 1)
print("a word")
log.flush()
time.sleep(1)
log.end()
"""


def test_a_log_that_cannot_be_shipped_is_told_once_and_is_there_in_the_end(tmp_path: Path) -> None:
    """On a full disk it was told each second."""
    store = Store.open(tmp_path / "store", {"fsync": False})
    run = store.runs.create({"pipeline": "p", "profile": "demo", "nodes": []})
    run.append_attempt("toy")
    place = Path(run.path_of("nodes/toy/attempts/0001/log").removeprefix("file://"))
    place.write_text("in the way of a folder")
    printed = tmp_path / "printed"
    with printed.open("wb") as into:
        process = subprocess.Popen(
            [sys.executable, "-c", STAGE, store.url, run.id],
            stdout=into, stderr=into, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    until = time.monotonic() + 60.0
    while "cannot be shipped" not in printed.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(2.5)
    place.unlink()
    assert process.wait(timeout=60) == 0
    assert printed.read_text().count("cannot be shipped") == 1
    assert "a word" in run.read_log("toy", 1)


LINES = """
import sys
from components.stage_log import StageLog
log = StageLog.begin()
log.ship_to(sys.argv[1], sys.argv[2], "toy", 1)
from wfm.log import get_logger, set_up
set_up("INFO")
get_logger("stage").info("toy: 6 parts")
print("12:00:00 is a time that a library told")
print("one of", end=" ")
get_logger("stage").warning("two")
log.flush()
log.end()
"""


def test_each_line_carries_the_time_once(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", {"fsync": False})
    run = store.runs.create({"pipeline": "p", "profile": "demo", "nodes": []})
    run.append_attempt("toy")
    ended = subprocess.run(
        [sys.executable, "-c", LINES, store.url, run.id], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    stamp, clock = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", r"\d\d:\d\d:\d\d"
    lines = run.read_log("toy", 1).splitlines()
    assert re.fullmatch(rf"{stamp} INFO    wfm\.stage: toy: 6 parts", lines[0])
    assert any(re.fullmatch(rf"{stamp} 12:00:00 is a time that a library told", line) for line in lines), (
        "its words stay"
    )
    assert re.search(rf"^{clock} INFO    wfm\.stage: toy: 6 parts$", ended.stderr, re.MULTILINE), "a pod's log has ours"
