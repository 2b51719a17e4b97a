"""Pipelines: which stages there are, how they join, and who runs them.

Read `stages.py` (the table), then `world_model.py` and `curate.py` (the DAGs), then `plan.py` (what has to run, and why),
then `on_prefect.py` (the embedded engine). `check.py` refuses a pipeline that cannot work; `lock.py` keeps the code ids;
`cli.py` is the command ``wfm``. Nothing here loads torch.
"""
