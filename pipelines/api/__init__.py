"""Runs and stores as Python objects: ``wfm.run`` and ``wfm.store``. The commands ``wfm run``, ``status``, ``logs``,
``artifacts`` do the same by the same functions; models and data sets themselves are `wfm.generation.published` and
`wfm.data.dataset`.

run       start a run, and what can be asked of one
store     a store: its runs, its artifacts by reference, what it holds by name
"""

__all__ = ["run", "store"]
