"""What a user asks of a pipeline: not what it resolved to, for `wfm rerun` resolves it again with the code of today.

Whoever starts runs (`start_run`, `verbs`) and whoever hands them to a cluster (`engines/remote.py`) gets one of these.
"""

import dataclasses
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.check_settings import check_files
from pipelines.nodes import Plan
from pipelines.plan import resolve
from pipelines.runs.submission import submission_of
from wfm.artifacts import schema
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run


@dataclasses.dataclass(frozen=True)
class Request:
    """What a user asks of a pipeline."""

    pipeline: str
    profile: str = "demo"
    overrides: tuple[str, ...] = ()
    videos: str = ""
    dataset: str = ""
    redo: Mapping[str, str] = dataclasses.field(default_factory=dict)
    "Node -> nonce: that node and what follows are made again."
    name: str = ""
    "What all results are called in place of the recipe's names."
    promote: bool = True
    "False: the results get no name."

    def plan(self, store: "Store") -> Plan:
        """The plan of today; raises `ConfigError` for names that do not exist and files that are not here."""
        plan = resolve(
            self.pipeline, profile=self.profile, store=store, overrides=list(self.overrides),
            videos=self.videos or None, dataset=self.dataset or None, redo=dict(self.redo),
            name=self.name or None, promote=self.promote,
        )  # fmt: skip
        check_files(plan)
        return plan

    def again(self, node: str) -> "Request":
        """The same with one node to be made again."""
        return dataclasses.replace(self, redo={**self.redo, node: secrets.token_hex(8)})

    @classmethod
    def of_run(cls, run: "Run") -> "Request":
        """What was asked of an earlier run, also of one that an engine on a cluster never planned."""
        submission = submission_of(run) if run.read("spec.json") is None else None
        asked = submission.request if submission is not None else run.spec().get("request")
        if not isinstance(asked, dict):
            raise InputError(f"run {run.id} does not say what was asked of it, so it cannot be run again")
        return schema.fit(cls, asked, f"what was asked of run {run.id} ({run.path_of('spec.json')})")
