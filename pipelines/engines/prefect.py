"""The embedded engine: Prefect runs a job's steps on this machine, no cluster and no server to set up.

Prefect decides what may start (a step after those it needs, a failed one stops its own branch only), tries again, and keeps the
history that its UI shows, with the tries at each node and their cost (`prefect_tries.py`). What a try is, and whether another
may help, the job says (`engine.py`); the truth about the run is ``runs/<id>/`` in the store.
"""

from typing import Any

from pipelines.engines.engine import Job
from pipelines.engines.prefect_package import import_prefect
from pipelines.engines.prefect_server import server_for_run
from pipelines.engines.prefect_tries import show_tries
from pipelines.engines.run_node import NodeFailed


def drive(job: Job) -> None:
    """One Prefect task a step; returns when none can run any more."""
    server_for_run()
    import_prefect()
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.futures import PrefectFuture
    from prefect.task_runners import ThreadPoolTaskRunner

    def attempt(node: str) -> None:
        try:
            job.attempt(node)
        finally:
            show_tries(lambda: job.tries(node), job.pipeline, node)

    def retry(_task: Any, _run: Any, state: Any) -> bool:
        return isinstance(state.data, NodeFailed) and job.again(state.data.node)

    threads: Any = ThreadPoolTaskRunner(max_workers=len(job.steps) + 1)  # waiting for the budget blocks a thread

    @flow(
        name=job.pipeline,
        flow_run_name=job.run_id,
        task_runner=threads,
        validate_parameters=False,
    )
    def pipeline() -> list[Any]:
        futures: dict[str, PrefectFuture[Any]] = {}
        for step in job.steps:
            made = task(
                name=step.node,
                task_run_name=step.node,
                tags={step.stage},
                retries=step.retries,
                retry_delay_seconds=0,  # the wait is in the attempt, where a cancel can cut it short
                retry_condition_fn=retry,
                cache_policy=NO_CACHE,
                persist_result=False,
            )(attempt)
            before = [futures[of] for of in step.inputs.values() if of in futures]
            futures[step.node] = made.submit(node=step.node, wait_for=before, return_state=False)
        for future in futures.values():
            future.wait()
        show_tries(lambda: job.tries(None), job.pipeline)
        return [future.state for future in futures.values()]

    pipeline(return_state=True)
