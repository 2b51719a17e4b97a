"""What things are called on Kubernetes: one injective map from keys and nodes to names, and our labels and annotations.

Names there are DNS-1035 labels: a-z, 0-9 and ``-``, a letter first, 63 characters at most, less where a controller appends
some of its own. Ours are longer (a key has 64 digits) and freer (``train_diffusion``). So a name is a readable beginning and
the hash of everything it stands for: two things never share one, whatever was cut off or folded.

The full key stands in annotations alone: labels hold 63 characters.
"""

import hashlib
import json
import re

PREFIX = "wfm.dev/"
LABEL_JOB = f"{PREFIX}job"
"Label of a job and of all its pods: the job's name."
LABEL_RUN = f"{PREFIX}run"
"Label: `label_value` of the run's id."
LABEL_NODE = f"{PREFIX}node"
"Label: `label_value` of the node's name."
LABEL_STAGE = f"{PREFIX}stage"
"Label: `label_value` of the stage's name."
LABEL_ROLE = f"{PREFIX}role"
"Label of every pod: what it is for, one of `ROLES`. Lint and network policies tell pods apart by it."
ROLES = {
    "stage": "runs a stage or a range of its parts: `components.X --spec …`; also runner, scheduler and workers of a DaskJob",
    "launcher": "makes or adopts the job of one stage and follows it: `components.launch_job`",
    "pipeline": "takes a whole run through, launch by launch: the script of `wfm cluster steps`",
    "planner": "says what a run must make, before anything is made",
    "notice": "tells somebody how a run ended, and books nothing (``onExit``)",
    "exporter": "serves metrics that it derives from the store",
    "retention": "deletes from the store what its policy does not keep, by the clock",
    "captioning": "the model server that captioning asks",
    "scaler": "raises that server, and sends it to zero when no run needs it",
}
"""Value of `LABEL_ROLE` -> what such a pod does."""
ANNOTATION_KEY = f"{PREFIX}key"
"Annotation: the key that the job makes, all 64 digits of it."
ANNOTATION_GENERATION = f"{PREFIX}generation"
"Annotation: which generation of the key (an invalidation begins the next)."
ANNOTATION_TRY = f"{PREFIX}try"
"Annotation: the how manieth try this is, from 1 on."
ANNOTATION_RUNS = f"{PREFIX}runs"
"Annotation: ids of the runs that need the job, with commas."
ANNOTATION_TIMEOUT = f"{PREFIX}timeout-seconds"
"Annotation: the seconds that one attempt may take."
ANNOTATION_HELD = f"{PREFIX}held"
"Annotation of a job, or of its Workload, that is held back for now (`wfm suspend`): who asked for it."
ANNOTATION_CODE = f"{PREFIX}code"
"Annotation: code id of the stage."

LONGEST = 63
"A label of DNS, a value of a label, the name of a job."
LONGEST_CRON = 52
"What makes jobs at times appends eleven characters."
LONGEST_DASK = 40
"The operator of Dask appends ``-default-worker-`` and ten digits, and makes labels of it."
_WORDS = {"pytorchjob": "train", "trainjob": "train", "daskjob": "dask", "indexed_job": "job", "parts": "parts"}
_DNS = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_HASHED = re.compile(r".*-x[0-9a-f]{12}")


def job_name(kind: str, key: str, generation: int) -> str:
    """The name of the one job that makes a key: ``train-0123abcd-`` and twenty digits, at most 35 characters for any kind.

    ``kind`` is that of `wfm.cluster.request.kind_of`, or ``parts`` for ranges of a stage's parts. The API server keeps it to
    one living job of a name; tries do not enter, so that each waits for the one before to be gone.
    """
    word = _WORDS.get(kind) or _readable(kind, 5)
    return f"{word}-{_folded(key)[:8].strip('-') or 'n'}-{_digest(20, kind, key, generation)}"


def node_name(node: str, longest: int = LONGEST) -> str:
    """The name of a task (Argo, Kubeflow Pipelines) for a node: DNS-1035, at most ``longest`` characters (16 or more)."""
    if longest < 16:
        raise ValueError(
            f"a name of {longest} characters has no room for the hash that tells it apart: give 16 or more"
        )
    return f"{_readable(node, longest - 13)}-{_digest(12, node)}"


def label_value(text: str) -> str:
    """``text`` as the value of a label: itself where that is one, else a readable beginning and a hash. Injective: what looks
    like one with a hash is hashed again."""
    if _LABEL.fullmatch(text) and not _HASHED.fullmatch(text):
        return text
    return f"{_readable(text, 48)}-x{_digest(12, text)}"


def is_dns_1035(name: str, longest: int = LONGEST) -> bool:
    """Whether Kubernetes takes this for the name of a job."""
    return len(name) <= longest and _DNS.fullmatch(name) is not None


def _readable(text: str, longest: int) -> str:
    """What can be kept of a text in a name that begins with it: a letter first, and no ``-`` at the end."""
    folded = _folded(text)
    if not folded[:1].isalpha():
        folded = f"n{folded}"
    return folded[:longest].rstrip("-")


def _folded(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _digest(digits: int, *parts: str | int) -> str:
    """The first digits of the hash of all parts, told apart from each other; text of any kind, even with lone surrogates."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:digits]
