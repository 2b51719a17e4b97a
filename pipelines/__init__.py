"""Pipelines: which stages there are, how they join, and who runs them.

Read `stages.py` (the table), then `world_model.py` and `curate.py` (the DAGs), then `plan.py` (what has to run, and why),
then `on_prefect.py` (the embedded engine). `check.py` refuses a pipeline that cannot work, `check_settings.py` options that
cannot; `from_dataset.py` begins in the middle; `explain.py` and `estimate.py` say why and for how long; `lock.py` keeps the
code ids; `cli.py` is the command ``wfm``.

The engine's server: `prefect_server.py` (where it lives), `serve_api.py` behind `api_gate.py` (who may ask), `wfm_home.py` (the
folder and the password), `schedule.py` and `due_runs.py` (runs by the clock). Nothing here loads torch.
"""
