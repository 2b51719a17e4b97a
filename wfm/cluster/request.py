"""What the launcher is asked for: one stage process (or ranges of its parts) with everything its pods need to know."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from wfm.cluster.names import job_name
from wfm.cluster.resources import Kind, Resources
from wfm.cluster.settings import ClusterSettings, Image

JobKind = Literal["pytorchjob", "trainjob", "daskjob", "indexed_job"]
"""The four kinds of job that are made."""


@dataclass(frozen=True)
class JobRequest:
    """One job to be made or adopted."""

    stage: str
    component: str
    node: str
    kind: Kind
    image: Image
    key: str
    "64 digits."
    generation: int
    run_id: str
    spec_url: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    "Input name -> key."
    resources: Resources = field(default_factory=Resources)
    timeout_seconds: float = 3600.0
    "Wall time that one attempt may take, from its first pod on [s]."
    retries: int = 3
    parts: int = 0
    "Ranges that the stage's parts are made in, without an artifact (``--parts i/n``); 0: the stage itself."
    code: str = ""
    "Code id of the stage, for the record."

    def name(self, settings: ClusterSettings) -> str:
        """The name of its job."""
        return job_name("parts" if self.parts else kind_of(self, settings), self.key, self.generation)

    def closing(self) -> "JobRequest":
        """The stage itself after its ranges: one pod without devices that finds all parts and commits."""
        return dataclasses.replace(self, kind="container", parts=0, resources=self.resources.runner())


def kind_of(request: JobRequest, settings: ClusterSettings) -> JobKind:
    """What a request is made as: ranges of parts and stages of one pod are an Indexed Job."""
    if request.parts or request.kind == "container":
        return "indexed_job"
    return settings.training_job if request.kind == "torchjob" else "daskjob"
