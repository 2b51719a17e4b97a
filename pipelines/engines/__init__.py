"""Engines: who starts the stages of a plan.

Read `compile` (a plan written down as steps), `engine` (what every engine does: names, states, the end), then the two there
are: `local` and `prefect`. Below them `run_node` (one node on this machine: from "may start" to its outcome; a try, and whether
another may help), `subprocess_stage` and `guard` (a process that dies with its run), `budget` (what runs side by side) and
`dask_cluster`. For Prefect: `prefect_tries` (what its UI shows of cost), `prefect_package` and `prefect_server`
(where its server lives), `serve_api` behind `api_gate` (who may ask), `schedule` and `due_runs` (runs by the clock).

On a cluster: `flow` (what all runs of a pipeline have in common), for which `argo` and `kubeflow` write what they are given.
"""
