"""What the launcher is asked for: one stage process (or ranges of its parts) with everything its pods need to know."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wfm.artifacts import schema
from wfm.cluster.names import job_name
from wfm.cluster.resources import Kind, Resources
from wfm.cluster.settings import ClusterSettings, Image
from wfm.config import AboveZero, Natural
from wfm.errors import ConfigError

JobKind = Literal["pytorchjob", "trainjob", "daskjob", "indexed_job"]
"""The four kinds of job that are made."""


@dataclass(frozen=True)
class SpecOfJob:
    """What of a stage's spec is for whoever makes a job of it (``kind`` is the artifact's there)."""

    stage: schema.Word
    component: schema.Word
    node: schema.Word
    run_id: schema.Word
    job_kind: Kind
    image: Image
    resources: Resources
    timeout_seconds: AboveZero
    retries: Natural
    parts: Natural = 0
    code: schema.Short = ""


FIELDS = tuple(one.name for one in dataclasses.fields(SpecOfJob))


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

    @classmethod
    def of_spec(
        cls, spec: Mapping[str, Any], spec_url: str, inputs: Mapping[str, str], key: str, generation: int
    ) -> "JobRequest":
        """From the spec of a stage, as `pipelines.engines.compile` writes it. Raises DataError naming the field that is
        missing or of another form: a spec comes from a store, and an older planner wrote less; ConfigError where inputs are
        missing, or there are others: devices would be held only to find that out."""
        told = schema.fit(SpecOfJob, {name: spec[name] for name in FIELDS if name in spec}, f"the spec at {spec_url}")
        given = schema.fit(dict[schema.Word, schema.Key], dict(inputs), "what --input says")
        needed = schema.fit(
            list[schema.Word], spec.get("inputs", sorted(given)), f"the inputs of the spec at {spec_url}"
        )
        if sorted(needed) != sorted(given):
            found = ", ".join(sorted(given)) or "(none)"
            raise ConfigError(
                f"{told.node} takes the inputs {', '.join(needed) or '(none)'}; given are {found}: give --input NAME=KEY for "
                "each and no other"
            )
        return cls(
            **{("kind" if name == "job_kind" else name): getattr(told, name) for name in FIELDS},
            key=schema.fit(schema.Key, key, "the key of the job"),
            generation=schema.fit(schema.Number, generation, "the generation of the job"),
            spec_url=spec_url,
            inputs=given,
        )

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
