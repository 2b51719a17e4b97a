"""The book of a run: `state` (what each node is doing, as its engine on this machine says), `seen` (the same from anywhere,
by the tries that the stages write down, and what these cost), `submission` (whom it was asked of, with what), `metrics` (for Prometheus), `display` (what people see while it
goes on). Of all runs: `ledger` (what their tries add up to), `exporter` (that for Prometheus). They know runs and nodes, and no
engine.
"""
