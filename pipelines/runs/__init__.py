"""The book of a run: `state` (what each node is doing, in the store), `metrics` (for Prometheus), `display`
(what people see while it goes on). They know runs and nodes, and no engine.
"""
