"""Runs as objects: the newest of a store, where one stands, what a stage wrote.

python examples/follow_run.py                       # the newest run
python examples/follow_run.py RUN STAGE             # the last lines of a stage's log, too
"""

import sys

import wfm


def main(run_id: str = "", stage: str = "") -> None:
    store = wfm.store()
    for run in store.runs(limit=5):
        status = run.status()
        print(f"{run.id} {status.pipeline} {status.state} {status.started}")
    run = store.get_run(run_id) if run_id else store.runs(limit=1)[0]
    status = run.status()
    for one in status.stages:
        print(f"    {one.stage:24} {one.state:8} {one.seconds:6.0f} s  {one.key[:12]}  {one.reason or one.note}")
    print(f"cpu {status.spent.cpu_seconds:.0f} s, of that {status.wasted.cpu_seconds:.0f} s in tries that made nothing")
    if stage:
        print("\n".join(run.logs(stage).splitlines()[-10:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
