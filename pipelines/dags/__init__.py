"""Pipelines as data, one screen each: functions from settings to a graph over the table of stages.

Read `graph` (what a pipeline is), `curate` (raw video to a dataset), `world_model` (from there to two evaluated models and a
page), `decoder`; `from_dataset` begins with a dataset that is in the store; `promotion` says what the results are called.
"""
