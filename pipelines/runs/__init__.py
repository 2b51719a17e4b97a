"""The book of a run: `state` (what each node is doing, as its engine on this machine says), `seen` (the same from anywhere,
by the tries that the stages write down, and what these cost), `submission` (whom it was asked of, with what), `failed_plan`
(why it has no plan, on a cluster), `events` (what happened to it, in words), `webhook` (whoever wants to hear that it failed),
`metrics` (for Prometheus), `display` (what people see while it goes on; the style of its tables is `wfm.terminal_table`). Of
all runs: `cost` (by run, team, stage), `ledger` (what their tries add up to), `counted` (how that outlives a restart),
`exporter` (that for Prometheus). They know runs and nodes, and no engine.
"""
