"""Requests and settings that tests of the cluster begin with."""

from typing import Any

from pipelines.stages import StageRow, stage
from wfm.cluster.request import JobRequest
from wfm.cluster.resources import Resources
from wfm.cluster.settings import ClusterSettings

KEY = "0123456789abcdef" * 4
RUN = "20260101T000000000-00000000"
DIGEST = "sha256:" + "a" * 64


def settings(**more: Any) -> ClusterSettings:
    """A cluster with images by digest and a queue."""
    images = {role: f"registry.example/wfm-{role}@{DIGEST}" for role in ("curation", "training", "control")}
    return ClusterSettings.parse({"images": images, "queue": "research", **more})


def request(name: str = "train_world_model", **more: Any) -> JobRequest:
    """What a row of the table asks for; ``resources`` as plain values on top of the row's."""
    row: StageRow = stage(name)
    resources = Resources.parse({**row.resources.resolved(), **more.pop("resources", {})})
    given: dict[str, Any] = {
        "stage": row.name, "component": row.component, "node": row.name, "kind": row.kind, "image": row.image, "key": KEY,
        "generation": 1, "run_id": RUN, "spec_url": f"s3://bucket/store/runs/{RUN}/specs/{row.name}.json",
        "inputs": {"latents": "1" * 64}, "resources": resources, "timeout_seconds": row.timeout_seconds,
        "retries": row.retries, "code": "1",
    }  # fmt: skip
    return JobRequest(**{**given, **more})
