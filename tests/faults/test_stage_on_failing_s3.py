"""A stage whose store goes away: before it began, in the middle, and when it says how it ended."""

import re
import threading
import time

from tests.components.test_stage_attempt import Trial, until


def trial_on(proxy, folder, retry_seconds):
    options = {"key": "k", "secret": "secret", "endpoint_url": proxy.endpoint, "retry_seconds": retry_seconds}
    return Trial(folder, proxy.open(), options)


def test_a_store_that_takes_no_record_ends_it_as_try_again_with_the_reason(proxy, tmp_path):
    trial = trial_on(proxy, tmp_path, 0.5)
    trial.patience = 1.0
    proxy.plan = staticmethod(lambda method, path: "503" if method == "PUT" and "/nodes/" in path else None)
    code, out = trial.end(trial.start())
    assert code == 75
    assert "TryAgain: the beginning of this try cannot be noted" in out
    assert "said by print" not in out, "no work without a record"


def test_a_store_that_is_away_for_a_while_stops_no_stage_and_costs_no_line(proxy, tmp_path):
    trial, down = trial_on(proxy, tmp_path, 1.0), threading.Event()
    proxy.plan = staticmethod(lambda method, path: "503" if down.is_set() else None)
    down.set()
    process = trial.start(act="wait")
    time.sleep(4.0)
    assert not trial.sign.exists(), "it waits with its work"
    down.clear()
    trial.at_work(process)
    down.set()
    time.sleep(2.0)
    assert process.poll() is None, "it goes on"
    down.clear()
    until(lambda: "round 30" in trial.run.read_log("toy"), 40.0)
    proxy.plan = staticmethod(lambda method, path: "503" if down.is_set() and "/nodes/" in path else None)
    down.set()
    trial.sign.write_text("enough")
    time.sleep(3.0)
    down.clear()
    assert trial.end(process)[0] == 0
    assert trial.outcomes() == ["done"]
    rounds = [int(number) for number in re.findall(r"round (\d+)", trial.run.read_log("toy"))]
    assert rounds == list(range(len(rounds)))
