"""Pipelines: which stages there are, how they join, and who runs them. Nothing here loads torch.

stages.py      the table: read it first
dags/          pipelines as data: `graph`, then one file a pipeline; `from_dataset` begins in the middle
plan.py        what has to run, and why; `nodes` is what it gives, `needs` what each needs to run. `check` refuses a pipeline
               that cannot work, `check_settings` and `check_curation` options that cannot (`asked` is what these rules see)
explain.py     why a stage ran; `estimate` for how long; `lock` keeps the code ids
runs/          the book of a run: its state, its log, its metrics, what people are shown
engines/       who starts the stages: `compile`, `engine`, then one file an engine
verbs.py       what is done with a run on any engine: submit, look, suspend, resume, cancel; `background` is this machine's way
request.py     what is asked of a pipeline; `run_file` the same as a file
start_run.py   from a request to a finished run; `retry_failed` for what was left out; `wfm_home` is the engine's folder
api/           the same for Python: ``wfm.run``, ``wfm.store``
commands/      the command ``wfm``, one file a group
"""
