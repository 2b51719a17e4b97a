"""What runs in a task of KFP before the command that it is for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.derivation import ROOT

CONTAINER = [sys.executable, "-m", "pipelines.engines.kubeflow.container"]


def in_container(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([*CONTAINER, *words], env=given, capture_output=True, text=True, timeout=60)


def test_entries_of_secrets_become_variables_and_the_end_is_the_commands(tmp_path: Path) -> None:
    secret = tmp_path / "wfm-store"
    (secret / "..data").mkdir(parents=True)
    for name, text in {"KEY": "from-file", "SET": "from-file", "not-a-name": "x"}.items():
        (secret / "..data" / name).write_text(text)
        (secret / name).symlink_to(Path("..data") / name)
    say = "import os, sys; print(os.environ['KEY'], os.environ['SET'], 'not-a-name' in os.environ); sys.exit(78)"
    done = in_container("--secrets", str(tmp_path), "--", sys.executable, "-c", say, SET="here")
    assert (done.returncode, done.stdout) == (78, "from-file here False\n"), done.stderr


def test_outputs_are_taken_where_they_are_wanted_if_all_went_well(tmp_path: Path) -> None:
    wanted = ("--take", str(tmp_path / "said"), str(tmp_path / "kfp" / "outputs" / "run"))
    write = f"import sys; open({str(tmp_path / 'said')!r}, 'w').write('r1'); sys.exit(int(sys.argv[1]))"
    assert in_container(*wanted, "--", sys.executable, "-c", write, "75").returncode == 75
    assert not Path(wanted[2]).exists()
    assert in_container(*wanted, "--", sys.executable, "-c", write, "0").returncode == 0
    assert Path(wanted[2]).read_text() == "r1"


@pytest.mark.parametrize(("given", "option"), [("mine", "--run-id=mine"), ("", "--run-id=job-7")])
def test_what_a_run_was_not_given_is_another_thing(given: str, option: str) -> None:
    done = in_container(
        "--either", "run-id", given, "job-7", "--", sys.executable, "-c", "import sys; print(sys.argv[1:])"
    )
    assert done.stdout == f"{[option]}\n", done.stderr


@pytest.mark.parametrize(
    ("codes", "tries"),
    [
        ((75, -9, 0), 3), ((78,), 1), ((1,), 1), ((143,), 1), ((75, 78), 2), ((75, 75, 75, 75), 4),
        ((-9,), 2), ((-9, 75, -9), 3), ((-9, 0), 2), ((-15, -15, 0), 3),
    ],
)  # fmt: skip
def test_what_passes_is_tried_again_and_what_is_final_is_not(
    codes: tuple[int, ...], tries: int, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    play = f"""
import os, sys
path = {str(count)!r}
done = os.path.getsize(path) if os.path.exists(path) else 0
open(path, 'a').write('x')
code = {codes!r}[min(done, {len(codes) - 1})]
os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)
"""
    done = in_container("--tries", "4", "--pause", "0.01", "--", sys.executable, "-c", play)
    last = codes[-1] if codes[-1] >= 0 else 128 - codes[-1]
    assert (done.returncode, count.stat().st_size) == (last, tries), done.stderr


@pytest.mark.parametrize("raw", [b"\xff\xfe-canary", b"canary\0x"])
def test_an_entry_that_is_no_text_is_refused_by_name(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "wfm-store").mkdir()
    (tmp_path / "wfm-store" / "KEYTAB").write_bytes(raw)
    done = in_container("--secrets", str(tmp_path), "--", sys.executable, "-c", "")
    assert done.returncode == 78
    assert "the entry KEYTAB of the secret wfm-store is no text" in done.stderr
    assert "canary" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    (tmp_path / "wfm-store" / "KEYTAB").rename(tmp_path / "wfm-store" / "key-tab")
    assert in_container("--secrets", str(tmp_path), "--", sys.executable, "-c", "").returncode == 0


@pytest.mark.parametrize("more", [(), ("--tries", "5")])
def test_a_signal_reaches_the_command(more: tuple[str, ...]) -> None:
    wait = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); print('up', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [*CONTAINER, *more, "--", sys.executable, "-c", wait]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 75
    assert time.monotonic() - began < 30
