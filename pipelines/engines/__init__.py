"""Engines: who starts the stages of a plan.

Read `run_node` (one node: from "may start" to its outcome; a try, and whether another may help), below it `subprocess_stage`
and `guard` (a process that dies with its run), `budget` (what runs side by side) and `dask_cluster`; then `prefect`, the
embedded engine. Its server: `prefect_server` (where it lives), `serve_api` behind `api_gate` (who may ask), `schedule` and
`due_runs` (runs by the clock).
"""
