"""What stands for a stage: a process that keeps its attempt in the run as stages do, and makes what its script says.

    python -m tests.cluster.engines.stage --spec URL --input NAME=KEY ... --key-out FILE

The script is a file of JSON that ``WFM_TEST_SCRIPT`` names: node -> ``{"fail": [outcome, ...], "waits": FILE}``: how its tries
fail, one each, and a file that it waits for before its end. The artifact has the node's own key.
"""

import argparse
import json
import os
import time
from pathlib import Path

from wfm import stopping

CODES = {"try_again": 75, "bug": 1, "wrong_input": 78}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", required=True)
    parser.add_argument("--input", action="append", default=[])
    parser.add_argument("--key-out", required=True)
    arguments = parser.parse_args()
    stopping.listen()
    from components.entrypoint import given_inputs, node_key, read_spec
    from components.promotion import promote
    from components.stage_attempt import StageAttempt
    from components.stage_log import StageLog
    from wfm.artifacts import Store

    spec = read_spec(arguments.spec)
    store = Store.open(spec["store"])
    run = store.runs.of(spec["run_id"])
    while os.environ["WFM_ENGINE"] == "kubeflow" and run.suspended_by() and not run.cancelled_by():
        time.sleep(0.1)  # as a launcher does before it makes a job
    script = json.loads(Path(os.environ["WFM_TEST_SCRIPT"]).read_text()).get(spec["node"], {})
    attempt = StageAttempt(spec, StageLog.begin())
    attempt.open()
    key = node_key(spec, given_inputs(arguments.input), store)
    attempt.makes(key)
    while (
        script.get("waits")
        and not Path(script["waits"]).exists()
        and not (stopping.asked.is_set() or run.cancelled_by())
    ):
        time.sleep(0.1)
    cancelled = bool(run.cancelled_by())
    if stopping.asked.is_set() or cancelled:
        code = stopping.exit_when_cancelled() if cancelled else 143
        attempt.close({"outcome": "cancelled", "reason": "stopped on request", "exit_code": code})
    elif attempt.number <= len(script.get("fail", ())):
        outcome = script["fail"][attempt.number - 1]
        code = CODES[outcome]
        attempt.close({"outcome": outcome, "reason": f"told to fail with {outcome}", "exit_code": code})
    else:
        with store.attempt(key) as making:
            (making.path / "made.txt").write_text(spec["node"])
            making.commit(stage=spec["stage"], kind=spec["kind"])
        promote(store, spec["promote"], key, spec.get("gate"), run.id)
        Path(arguments.key_out).write_text(key)
        code = 0
        attempt.close({"outcome": "done", "reason": "", "key": key, "exit_code": 0})
    attempt.leave()
    os._exit(code)


if __name__ == "__main__":
    main()
