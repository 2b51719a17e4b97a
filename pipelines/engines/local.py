"""The plain engine: a thread a step, as soon as what it needs was made. It is there without any package.

A step whose input was not made never starts; others go on. What a try is, and whether another may help, the job says.
"""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pipelines.engines.engine import Job
from pipelines.engines.run_node import NodeFailed


def drive(job: Job) -> None:
    """Run the steps; returns when none can run any more."""
    missing = {step.node for step in job.steps}
    needs = {step.node: missing & set(step.inputs.values()) for step in job.steps}
    made: set[str] = set()
    running: dict[Future[bool], str] = {}
    with ThreadPoolExecutor(max_workers=len(missing), thread_name_prefix="step") as pool:
        while True:
            for node in [node for node, of in needs.items() if of <= made]:
                running[pool.submit(_make, job, node)] = node
                del needs[node]
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                node = running.pop(future)
                if future.result():
                    made.add(node)


def _make(job: Job, node: str) -> bool:
    """Try until it is made, or no further try may help."""
    while True:
        try:
            job.attempt(node)
            return True
        except NodeFailed:
            if not job.again(node):
                return False
