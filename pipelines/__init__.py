"""Pipelines: which stages there are, how they join, and who runs them. Nothing here loads torch.

stages.py      the table: read it first
dags/          pipelines as data: `graph`, then one file a pipeline; `from_dataset` begins in the middle
plan.py        what has to run, and why; `check` refuses a pipeline that cannot work, `check_settings` options that cannot
explain.py     why a stage ran; `estimate` for how long; `lock` keeps the code ids
runs/          the book of a run: its state, its log, its metrics, what people are shown
engines/       who starts the stages: on this machine and by the clock
start_run.py   from a request to a finished run; `retry_failed` for what was left out; `wfm_home` is the engine's folder
commands/      the command ``wfm``, one file a group
"""
