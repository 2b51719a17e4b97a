"""The command ``wfm``, one file a group: `cli` joins them. `console` is what they share, `plan_display` shows a plan.

`runs` starts and watches (`submit` what goes on by itself, `look_at_runs` with the models in `run_answers`), `curate` (with `curate_report`, `duplicates`) makes and looks through a dataset, `artifacts` (with
`purge`, `skipped`) looks after the store; `cluster` and `quota` are for Kubernetes
(`manifests` reads files of it); `search`, `weights`, `models`, `doctor`.
"""
