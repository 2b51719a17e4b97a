"""Argo Workflows: one WorkflowTemplate serves all runs of a pipeline, a CronWorkflow starts it at times.

Read `emit` (the objects as a whole: the graph, its time, what is kept), `templates` (the pod of each task: the plan step, a
stage, a launcher), `retry` (which ends are tried again), `cron` (times, and the hours that a zone skips or has twice), and
`hera` (Hera's models hold every object; what they do not know is refused, not lost). Then `remote` (what commands ask of
Argo's server) and `seen` (how its workflows look).

The first task, the plan step (`pipelines.plan_step`), writes the run's specs and says which nodes there are to make: the others
start no pod. What decides about anything is the store; nothing is remembered here.
"""
