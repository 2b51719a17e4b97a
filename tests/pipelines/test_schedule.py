"""A cron line that really fires, through a whole Prefect server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.schedule import check_cron, command_of
from pipelines.start_run import Request
from wfm.artifacts import Store
from wfm.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_a_cron_fires_and_nothing_stays_behind(tmp_path: Path) -> None:
    note = tmp_path / "note"
    due = [sys.executable, "-S", "-c", f"import time; open({str(note)!r}, 'a').write(f'{{time.time()}}\\n')"]
    code = f"from pipelines.schedule import serve_command; serve_command({due!r}, 'test', '* * * * *')"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 200
        while not note.exists():
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        # Prefect starts a due run up to a second early and, on a busy machine, long after: no moment is asserted.
        assert note.read_text().strip()
        everyone = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
        _, alive = psutil.wait_procs(everyone, timeout=15)
        assert not alive
        assert not (Path(os.environ["WFM_HOME"]) / "prefect" / "server.json").exists()
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("cron", ["", "x", "* * * *", "61 * * * *", "* * * * * *"])
def test_a_wrong_cron_line_is_refused(cron: str) -> None:
    with pytest.raises(InputError, match="five fields"):
        check_cron(cron)


def test_a_due_run_is_the_command_a_user_would_type(tmp_path: Path) -> None:
    request = Request("curate", profile="smoke", videos="/v", dataset="mine", overrides=("split_clips.workers=1",))
    command = command_of(request, Store.open(tmp_path))
    assert command[1:4] == ["-m", "pipelines.cli", "run"]
    assert command[4:] == [
        "curate", "--profile", "smoke", "--store", f"file://{tmp_path}", "--quiet",
        "--videos", "/v", "--dataset", "mine", "--set", "split_clips.workers=1",
    ]  # fmt: skip
