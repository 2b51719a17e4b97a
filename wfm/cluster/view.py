"""What a decision is made from, and what it is: plain values, so that a test can write any of them down."""

import dataclasses
from collections.abc import Sequence

from wfm.cluster.names import ANNOTATION_TRY
from wfm.cluster.pod_states import Pod
from wfm.cluster.records import Death, Try
from wfm.cluster.request import JobKind, JobRequest
from wfm.cluster.settings import Patience
from wfm.cluster.states import Job, Workload
from wfm.errors import exit_code_of

GOOD = ("done", "cached")


@dataclasses.dataclass(frozen=True)
class End:
    """How a launcher came to its end with a request."""

    outcome: str
    reason: str
    exit_code: int
    key: str = ""
    "Of what was made, where it is another than asked for: a stage that looks at files outside saw others."

    @classmethod
    def of(cls, outcome: str, reason: str = "", key: str = "") -> "End":
        """With the exit code that says the same."""
        return cls(outcome, reason, exit_code_of(outcome), key)


@dataclasses.dataclass(frozen=True)
class View:
    """All that a decision is made from."""

    request: JobRequest
    "What is to be made now: ranges of parts first, then the stage itself."
    name: str
    "Of its job."
    kind: JobKind
    image: str
    "Of its pods, by digest."
    patience: Patience
    queued: bool
    "Whether its kind waits in a queue here."
    now: float
    committed: bool = False
    made_key: str = ""
    "The key that is there, where it is another than that of the request."
    committed_since: float = 0.0
    cancelled_by: str = ""
    cancelled_since: float = 0.0
    suspended_by: str = ""
    "Who holds the run back; looked for where there is no job."
    tries: tuple[Try, ...] = ()
    "Of this run at this node."
    job: Job | None = None
    mine: bool = True
    "Whether the job (the last that there was) was made for this run, and its tries are `tries`."
    noted: bool = True
    "Whether this run is noted on the job."
    job_tries: tuple[Try, ...] = ()
    "Tries of the run that the job was made for."
    shared: tuple[str, int] = ("", 0)
    "uid and first try of the last job of another run that this one was noted on."
    others: tuple[str, ...] = ()
    "Other runs that need the job, as far as it matters (when this one is cancelled)."
    refused: str = ""
    "Why its controller may make no pods, in the API server's words; empty when nothing of the kind is known."
    pods: tuple[Pod, ...] = ()
    departed: tuple[Pod, ...] = ()
    "Pods of the job that were deleted, as they were last seen."
    workload: Workload | None = None
    quiet_since: float = 0.0
    "Since when the job has nothing that runs or is to run; 0: it has."
    told_since: float = 0.0
    "Since when all tries of the job have an outcome, and the same pods live on; 0: it is not so."
    pause_until: float = 0.0
    pause_words: str = ""
    swept: bool = True
    "Whether nothing of a DaskJob's cluster is left behind."
    nodes: tuple[tuple[int, tuple[str, ...]], ...] = ()
    "(try, nodes that failed in it)."


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do, in this order: `deaths`, `blame`, `note` or `unnote`, `remove`, `stop_pods`, `sweep`, `create`, `end`."""

    words: str
    "What people are told."
    deaths: tuple[Death, ...] = ()
    blame: tuple[str, ...] = ()
    "Nodes that may be why this try ended."
    note: bool = False
    unnote: bool = False
    remove: bool = False
    "Delete the job."
    stop_pods: tuple[tuple[Pod, float | None], ...] = ()
    "Pods to be deleted, and their grace (None: their own)."
    sweep: bool = False
    create: int = 0
    "Number of the try to be made."
    avoid: tuple[str, ...] = ()
    end: End | None = None
    warning: str = ""
    look_in: float = 0.0
    "Seconds after which something may be due though nothing happens; 0: at the next poll."


def try_of(job: Job) -> int:
    """Number of the first attempt that a job may have opened."""
    text = job.annotations.get(ANNOTATION_TRY, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 1


def still_open(tries: Sequence[Try]) -> list[Try]:
    """Those whose end nobody wrote down yet."""
    return [one for one in tries if not one.outcome]
