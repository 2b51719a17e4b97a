"""The grace is counted from the signal itself: also while the main thread is in a call that lets no handler run."""

import json
import subprocess
import sys
import time

import pytest

from wfm import stopping
from wfm.errors import InputError

PROGRAM = """
import hashlib, json, os, signal, sys, threading, time
from wfm import stopping

stopping.listen()
if sys.argv[1] == "child":  # its signals are its own
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    os.waitpid(child, 0)
    stopping.rest(0.1)
    print(json.dumps({"left": stopping.left() < 1e9, "asked": stopping.asked.is_set()}), flush=True)
    os._exit(0)
told = {}

def watch():
    time.sleep(0.5)  # the call below has begun
    os.kill(os.getpid(), signal.SIGTERM)
    stopping.rest(60.0)
    told.update(left=stopping.left(), asked=stopping.asked.is_set(), end=stopping.left(stopping.FOR_THE_END))

watching = threading.Thread(target=watch)
watching.start()
until = time.monotonic() + 60
while not told and time.monotonic() < until:
    hashlib.pbkdf2_hmac("sha256", b"", b"", 6_000_000)  # one call of seconds
print(json.dumps({**told, "handled": stopping.asked.is_set()}))
"""


def run(what: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, timeout=120, check=True,
        env={"WFM_GRACE_SECONDS": "1000", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    return json.loads(done.stdout)


def test_a_signal_is_noted_while_its_handler_cannot_run() -> None:
    told = run("call")
    assert told["asked"] is False, "the handler, which alone told before, runs when the call is through"
    assert told["handled"] is True
    assert 900 < told["left"] <= 1000
    assert told["end"] == pytest.approx(told["left"] - 300, abs=1)


def test_a_forked_child_s_signal_is_not_the_parent_s() -> None:
    assert run("child") == {"left": False, "asked": False}


@pytest.mark.parametrize("wrong", ["soon", "-3", "nan", "inf"])
def test_a_grace_that_is_none_is_named(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFM_GRACE_SECONDS", wrong)
    with pytest.raises(InputError, match=f"WFM_GRACE_SECONDS is '{wrong}': give seconds, 0 or more, such as 30"):
        stopping.grace_seconds()


def test_a_grace_may_be_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a pod that is deleted by force, or an engine whose `grace_seconds` are 0."""
    monkeypatch.setenv("WFM_GRACE_SECONDS", "0")
    monkeypatch.setattr(stopping, "_came", time.monotonic())
    assert stopping.grace_seconds() == 0
    assert stopping.left() == stopping.left(stopping.FOR_THE_END) == 0.0


def test_without_a_signal_there_is_no_end() -> None:
    assert stopping.left() == float("inf")
