"""A stage process that does what its config says: sleep, fail a number of times, be deaf, hang; then commits a file.

Config: folder (where it counts its tries and notes its times), fail (list of outcomes, one a try: try_again, bug, wrong_input,
held, kill, exit_3), sleep (seconds), deaf (ignore SIGTERM), peak (bytes that the manifest says), says (its last outcome).
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

CODES = {"try_again": 75, "held": 75, "bug": 1, "wrong_input": 78}


def fake_key(node: str, config: dict, inputs: dict, redo: str) -> str:
    what = {name: value for name, value in config.items() if name == "value"}
    return hashlib.sha256(json.dumps([node, what, sorted(inputs.items()), redo]).encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", required=True)
    parser.add_argument("--input", action="append", default=[])
    parser.add_argument("--key-out", required=True)
    arguments = parser.parse_args()
    spec = json.loads(Path(arguments.spec.removeprefix("file://")).read_text())
    config, node = spec["config"], spec["node"]
    folder = Path(config["folder"])
    with open(folder / "events", "a") as events:
        events.write(json.dumps({"node": node, "event": "start", "time": time.time(), "pid": os.getpid()}) + "\n")
    if config.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from components.stage_attempt import LEASE_HELD, StageAttempt
    from components.stage_log import StageLog

    attempt = StageAttempt(spec, StageLog.begin())
    attempt.open()
    scheduler = os.environ.get("DASK_SCHEDULER_ADDRESS", "")
    print(f"hello from {node}, scheduler {scheduler!r}", flush=True)
    if scheduler:
        from wfm.parts.workers import map_tasks

        print(
            "workers say",
            [answer for _, answer in map_tasks(len, {"a": "abc"}, scheduler=scheduler)],
            flush=True,
        )
    tries = attempt.number
    time.sleep(config.get("sleep", 0))
    from components.promotion import promote
    from wfm.artifacts import Store

    store = Store.open(spec["store"])
    fail = config.get("fail", [])
    if tries <= len(fail):
        how = fail[tries - 1]
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exit_3":
            sys.exit(3)
        answer = {"outcome": how, "reason": f"told to fail with {how}", "exit_code": CODES[how]}
        if how == "held":
            answer |= {"outcome": "try_again", LEASE_HELD: True}
        attempt.close(answer)
        attempt.leave()
        os._exit(CODES[how])
    key = fake_key(node, config, dict(text.split("=") for text in arguments.input), spec["redo"])
    with store.attempt(key) as making:
        (making.path / "made.txt").write_text(node)
        resources = {"peak_bytes": config["peak"]} if "peak" in config else {}
        making.commit(stage=spec["stage"], kind=spec["kind"], resources=resources)
    promote(store, spec["promote"], key, spec.get("gate"), spec["run_id"])
    Path(arguments.key_out).write_text(key)
    attempt.close({"outcome": config.get("says", "done"), "reason": "", "key": key, "exit_code": 0})
    attempt.leave()
    with open(folder / "events", "a") as events:
        events.write(json.dumps({"node": node, "event": "end", "time": time.time()}) + "\n")


if __name__ == "__main__":
    main()
