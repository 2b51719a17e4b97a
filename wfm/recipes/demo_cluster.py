"""The main job of the demo on a real cluster: the same data and models under the same keys, with a platform's machines.

    WFM_CLUSTER=cluster.json wfm run world_model --profile demo_cluster

What is here is the shape of a run, for machines of 8 devices, 128 cores, 2 TiB of memory and 8 RDMA devices: curation on a
device a worker, trainings on whole machines, encoding and generation on a device a worker, everything else on a few cores. A
profile with its own data and models takes these needs (`NEEDS`) or others.
"""

from typing import Any

from wfm.recipes import demo

_MACHINE = {
    "gpu": 8, "cpu": 112, "memory_gib": 1600, "shm_gib": 256, "ephemeral_gib": 500, "rdma": 8, "grace_seconds": 300,
}  # fmt: skip
"""A whole machine, and some of it left for what runs on every one. Loader workers hand on through /dev/shm; a checkpoint takes
minutes."""
_WORKER = {"cpu": 12, "memory_gib": 160, "shm_gib": 16, "ephemeral_gib": 200, "spot": True}
"""An eighth of a machine: a device and what decodes for it. One that goes away costs the part that it was at."""
_CORES = {"cpu": 8, "memory_gib": 32, "shm_gib": 1, "ephemeral_gib": 100, "spot": True}
"""A worker without a device."""

NEEDS: dict[str, dict[str, Any]] = {
    "simulate_videos": {**_CORES, "replicas": 16},
    "ingest_videos": {**_CORES, "replicas": 16},
    "split_clips": {**_WORKER, "replicas": 32},
    "score_clips": {**_WORKER, "replicas": 32},
    "caption_clips": {**_CORES, "replicas": 16},
    "embed_clips": {**_WORKER, "replicas": 16},
    "dedup_clips": {"cpu": 28, "memory_gib": 400, "shm_gib": 16, "ephemeral_gib": 200},
    "select_clips": {"cpu": 4, "memory_gib": 64},
    "write_shards": {**_CORES, "replicas": 32, "ephemeral_gib": 300},
    "train_tokenizer_continuous": {**_MACHINE, "replicas": 2},
    "train_tokenizer_discrete": {**_MACHINE, "replicas": 2},
    "encode_latents_continuous": {**_WORKER, "gpu": 1, "replicas": 32},
    "encode_latents_discrete": {**_WORKER, "gpu": 1, "replicas": 32},
    "encode_signals": {**_CORES, "replicas": 32},
    "train_diffusion": {**_MACHINE, "replicas": 4},
    "train_autoregressive": {**_MACHINE, "replicas": 4},
    "train_decoder": {**_MACHINE, "replicas": 2},
    "generate_diffusion": {**_WORKER, "gpu": 1, "replicas": 16},
    "generate_autoregressive": {**_WORKER, "gpu": 1, "replicas": 16},
    "evaluate_diffusion": {**_WORKER, "gpu": 1, "spot": False},
    "evaluate_autoregressive": {**_WORKER, "gpu": 1, "spot": False},
    "write_report": {"cpu": 4, "memory_gib": 32},
}
"""Node -> what it needs. Of the curation ``gpu`` is left to ``gpu_curation``."""


def settings() -> dict[str, dict[str, Any]]:
    """Values by node name, with the section ``cluster``."""
    values = demo.settings()
    needed = {name: {**values.get(name, {}), "resources": needs} for name, needs in NEEDS.items()}
    return {**values, **needed, "cluster": {"gpu_curation": True}}
