"""Kubeflow Pipelines: a flow as a template of KFP (v2), which serves all its runs by their parameters.

    root ─┬─ plan
          └─ stages: if anything is missing ─┬─ simulate_videos: if it has to run ─ launch
                                             ├─ ingest_videos:   if it has to run ─ launch      (after simulate_videos)
                                             └─ ...

A task is never a stage: KFP gives a container no grace on SIGTERM and blurs how it ended, so each starts the thin launcher
(`components.launch_job`, of the control image), and a stage of one pod is a job too (an Indexed Job of one). First comes the
plan step; its outputs say which nodes have to run, so what is made already starts nothing, and under which keys, so that no
task reads another's outputs: KFP lets none out of a condition. A node is a small pipeline of its own with the condition inside,
for what follows a task that was skipped would never run (its back end makes ``depends: a.Succeeded`` of it), while a pipeline
in which all was skipped has succeeded.

KFP's cache is off everywhere: ours is the store. No task has a retry policy, which would retry wrong input as well: a stage is
tried again by its launcher, a launcher in its own pod (`container`), and a run that lost a pod by starting it once
more under its id (`docs/kubeflow.md`). No task that waits for a queue has a deadline.

Read `emit` (the files as a whole, and runs by the clock), `template` (tasks, and the pipelines they stand in), `container`
(what runs in each task before the command that it is for), and `remote` (what commands ask of KFP's API).
"""
