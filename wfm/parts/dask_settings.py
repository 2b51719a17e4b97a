"""What Dask is told: by us, by the user, and by whoever sets up a scheduler and workers elsewhere (a DaskJob, a batch system).

A user's own settings are Dask's (``DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=20``, a YAML file of Dask's). Where it is a
matter of choice they win; where another value would break a stage or open it to strangers, it is refused.
"""

from typing import Any

from wfm.errors import InputError

WORKER_LOSSES_ALLOWED = 2
"""How often a task may lose its worker before it is given up: a task that kills every worker it meets must not go on."""
LOSSES_ON_A_CLUSTER = 20
"""The same where workers come and go with the machines: losses say little there, and a `poison` guard knows the items."""
PRELOAD = "wfm.parts.in_worker"

_CHOICES: dict[str, Any] = {
    # A worker that nears its limit is stopped and its task tried elsewhere: never written to a disk nobody asked for.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.scheduler.allowed-failures": WORKER_LOSSES_ALLOWED,
    "distributed.scheduler.work-stealing": False,
    "distributed.deploy.lost-worker-timeout": "1000 days",  # nannies bring workers back: one lost twice in 15 s is not given up
    "distributed.comm.timeouts.connect": "30s",
    "distributed.admin.tick.limit": "30s",
}
_FIXED: dict[str, tuple[Any, str]] = {
    "distributed.scheduler.http.routes": ([], "pages in clear would be open to all"),
    "distributed.worker.http.routes": ([], "pages in clear would be open to all"),
    "distributed.worker.multiprocessing-method": ("spawn", "a forked worker inherits locks that nobody will give back"),
    "distributed.nanny.pre-spawn-environ.PYTHONSAFEPATH": ("1", "else workers import what lies in the current folder"),
}
_QUIET = {
    # A worker whose last heartbeat meets a scheduler that has just gone is no error to tell of; tasks' own come as answers.
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
}
_HEALTH = ["distributed.http.health"]
"""The one page that a cluster's probes ask for."""


def local_settings() -> dict[str, Any]:
    """The settings of a cluster on this machine: ours, and what the user chose. Raises InputError for one that breaks it."""
    import dask

    given = dask.config.collect()  # the user's alone, without the defaults of the package
    settings = {name: dask.config.get(name, value, config=given) for name, value in _CHOICES.items()}
    for name, (value, why) in _FIXED.items():
        chosen = dask.config.get(name, value, config=given)
        if chosen != value:
            raise InputError(f"{variable(name)} is {chosen!r}: workers of a run have {value!r}, or {why}. Unset it")
        settings[name] = value
    _check(settings)
    asked = dask.config.get("distributed.worker.preload", [], config=given)
    preload = [asked] if isinstance(asked, str) else list(asked)
    return {**settings, **_QUIET, "distributed.worker.preload": [*preload, PRELOAD]}


def dask_environment(folder: str) -> dict[str, str]:
    """The variables of the environment that a scheduler and its workers need which wfm did not start itself.

    ``folder``: where a worker may write (its ``--local-directory``): an absolute path on a disk of its own. Whoever sets up the
    cluster may change what is a choice, such as the losses allowed. The addresses and keys (``DASK_SCHEDULER_ADDRESS``,
    ``DASK_DISTRIBUTED__COMM__TLS__…``) are the cluster's own. Start workers with one thread each (``--nthreads 1``): of two
    items in one process that crashed nobody knows which it was.
    """
    if not folder.startswith("/"):
        raise InputError(f"the folder of Dask's workers is {folder!r}: give an absolute path, such as /scratch/dask")
    settings = {
        **_CHOICES,
        "distributed.scheduler.allowed-failures": LOSSES_ON_A_CLUSTER,
        "distributed.scheduler.http.routes": _HEALTH,
        "distributed.worker.http.routes": _HEALTH,
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.worker.preload": [PRELOAD],
        "temporary-directory": folder,
    }
    return {"PYTHONSAFEPATH": "1", **{variable(name): str(value) for name, value in settings.items()}}


def variable(setting: str) -> str:
    """The variable of the environment by which Dask takes a setting."""
    return f"DASK_{setting.upper().replace('.', '__').replace('-', '_')}"


def _check(settings: dict[str, Any]) -> None:
    """Raises InputError for values that Dask would take without a word."""
    losses = settings["distributed.scheduler.allowed-failures"]
    if isinstance(losses, bool) or not isinstance(losses, int) or losses < 0:
        name = variable("distributed.scheduler.allowed-failures")
        raise InputError(f"{name} is {losses!r}: give a whole number, 0 or more, of losses that a task may have")
    for share in ("target", "spill", "pause", "terminate"):
        value = settings[f"distributed.worker.memory.{share}"]
        if value is not False and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1):
            name = variable(f"distributed.worker.memory.{share}")
            raise InputError(f"{name} is {value!r}: give a share of the worker's memory above 0 and up to 1, or False")
