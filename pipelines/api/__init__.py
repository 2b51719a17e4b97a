"""Runs and stores as Python objects: ``wfm.run``, ``wfm.submit``, ``wfm.store``. The commands do the same by the same functions
(`pipelines.start_run`, `pipelines.verbs`, `pipelines.commands.run_answers`); models and data sets themselves are
`wfm.generation.published` and `wfm.data.dataset`.

run       start a run, submit one, and what can be asked of one
store     a store: its runs, its artifacts by reference, what it holds by name
"""

__all__ = ["run", "store"]
