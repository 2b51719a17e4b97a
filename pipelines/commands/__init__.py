"""The command ``wfm``, one file a group: `cli` joins them. `console` is what they share (streams, options, tables, errors),
`group` how they are listed, `completion` what the tab key knows, `request_options` what asks for a pipeline (or a run file),
`json_output` what scripts get, `plan_display` shows a plan.

`runs` starts and watches (`submit` what goes on by itself, `look_at_runs` with the models in `run_answers`, `events`, `cost`;
`backfill` and `schedules` by the clock), `curate` (with `curate_report`, `duplicates`) makes and looks through a dataset,
`artifacts` (with `purge`, `skipped`) looks after the store; `cluster` and `quota` are for Kubernetes (`manifests` reads files
of it); `search`, `weights`, `models`, `doctor`.
"""
