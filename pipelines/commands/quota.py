"""``wfm quota``: what a pipeline will ask a cluster's queues for, whether that can ever be admitted, and what it waits for."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
import typer

from pipelines.commands import completion
from pipelines.commands.console import STORE_DEFAULT, StoreOption, open_store, say, show_table, table, warn
from pipelines.commands.json_output import JsonOption, say_json
from pipelines.commands.manifests import objects_under
from pipelines.commands.request_options import DatasetOption, SetOption
from wfm.errors import ConfigError, InputError, TryAgain

if TYPE_CHECKING:
    from pipelines.nodes import Plan
    from wfm.cluster.quota import Cluster, Gang, Verdict
    from wfm.cluster.quota.waiting import Waiting
    from wfm.cluster.settings import ClusterSettings

_NO_IMAGE = "none.invalid/none@sha256:" + "0" * 64
"""In jobs that are only counted, where the settings name no image."""


def add_to(app: typer.Typer) -> None:
    """Enter the command."""
    app.command()(quota)


def quota(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="world_model, curate or decoder; left out: the jobs among the manifests.",
            autocompletion=completion.pipelines,
        ),
    ] = "",
    profile: Annotated[
        str, typer.Option(help="Recipe; demo_cluster says what each stage needs.", autocompletion=completion.profiles)
    ] = "demo_cluster",
    manifests: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Queues, flavors, quotas, machines: a folder or a file; may be repeated."),
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="Ask the cluster (reads only), and say what waits.")] = False,
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="FILE", envvar="WFM_CLUSTER", help="Settings of the cluster.")
    ] = "",
    videos: Annotated[str, typer.Option(metavar="URL", help="Your own, where pods can read them.")] = "",
    dataset: DatasetOption = "",
    set_: SetOption = None,
    api: Annotated[str, typer.Option(metavar="URL", help="API server, for --online; empty: the kubeconfig's.")] = "",
    json_: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Say what each stage will ask the queues for, and whether it can ever be admitted. Exit code 78: something never will be;
    75: a queue is stopped, or it cannot be told; 0: all of it, when it is its turn."""
    from wfm.cluster.quota import gangs, judge
    from wfm.cluster.settings import ClusterSettings

    settings = ClusterSettings.read(cluster) if cluster else None
    objects, there, told = _known(manifests or [], online, api, settings.namespace if settings else "")
    if pipeline:
        plan = _plan(pipeline, profile, tuple(set_ or ()), videos, dataset, store)
        settings = settings or _settings(there)
        jobs = jobs_of(plan, settings)
    else:
        jobs = objects
    wanted = gangs(jobs, settings)
    if not wanted and not pipeline:
        raise InputError("there is no job among the manifests: name a PIPELINE, or give files of jobs")
    integrations = settings.integrations if settings and cluster else None
    verdicts = [judge(gang, there, integrations) for gang in wanted]
    waits = [_present(verdict, there, told) for verdict in verdicts]
    if json_:
        say_json(QuotaAnswer(stages=[plain(*both) for both in zip(verdicts, waits, strict=True)]))
    else:
        _show(verdicts, waits)
    code = _code(verdicts, waits)
    if code:
        raise typer.Exit(code)


def _known(manifests: list[Path], online: bool, api: str, namespace: str) -> "tuple[list[Any], Cluster, bool]":
    """(all objects, what of them decides about quota, whether the cluster told of its workloads). Raises InputError where
    nothing decides anything."""
    from wfm.cluster.quota import read_cluster

    if not manifests and not online:
        raise InputError("nothing is known of the queues: give --manifests PATH, or --online to ask the cluster")
    objects = objects_under(manifests)
    told = False
    if online:
        from wfm.cluster.api import Api
        from wfm.cluster.quota.online import read_objects

        fetched, notes, told = read_objects(Api.connect(namespace=namespace, url=api))
        objects += fetched
        for note in notes:
            warn(note)
    there = read_cluster(objects)
    if not (there.queues or there.resource_quotas or there.limit_ranges or there.nodes):
        where = ", ".join(map(str, manifests)) or "the cluster"
        raise InputError(f"{where}: there is no ClusterQueue, ResourceQuota, LimitRange or Node: nothing can be told")
    return objects, there, told


def _present(verdict: "Verdict", there: "Cluster", told: bool) -> "Waiting | None":
    """What it waits for now; None where nothing is known of the present."""
    from wfm.cluster.quota.waiting import wait

    if not told and not there.workloads and verdict.gang.queue:
        return None
    waiting = wait(verdict, there)
    return None if waiting.state == "none" and not verdict.gang.queue else waiting


def _plan(pipeline: str, profile: str, overrides: tuple[str, ...], videos: str, dataset: str, store: str) -> "Plan":
    from pipelines.request import Request

    asked = Request(pipeline, profile=profile, overrides=overrides, videos=videos, dataset=dataset)
    return asked.plan(open_store(store, new=True))


def _settings(there: "Cluster") -> "ClusterSettings":
    """Where no settings are given: the only LocalQueue there is, or none."""
    from wfm.cluster.settings import ClusterSettings

    if len(there.locals) > 1:
        choices = ", ".join(f"{name} (namespace {namespace})" for namespace, name in sorted(there.locals))
        raise ConfigError(f"which queue? There are {choices}: give --cluster FILE with queue and namespace")
    namespaces = {namespace for namespace, _ in there.locals} | {each.namespace for each in there.resource_quotas}
    namespace = next(iter(sorted(filter(None, namespaces))), "wfm")
    return ClusterSettings.parse({"namespace": namespace, "queue": next((name for _, name in there.locals), "")})


def jobs_of(plan: "Plan", settings: "ClusterSettings") -> list[Any]:
    """The jobs of a plan's missing nodes as they will be made, and a closing one for what is made in ranges. What is made
    already asks for nothing."""
    from pipelines.stages import STAGES
    from wfm.cluster.objects import build
    from wfm.cluster.request import JobRequest

    images = {role: image or _NO_IMAGE for role, image in settings.images.resolved().items()}
    settings = settings.model_copy(update={"images": type(settings.images).parse(images)})
    found = []
    for node in plan.missing:
        row = STAGES[node.stage]
        request = JobRequest(
            stage=node.stage, component=node.component, node=node.name, kind=row.kind, image=row.image,
            key=node.key or hashlib.sha256(node.name.encode()).hexdigest(), generation=1, run_id="quota", spec_url="",
            resources=node.resources, timeout_seconds=row.timeout_seconds, retries=row.retries, parts=node.resources.parts,
        )  # fmt: skip
        found += [build(each, settings) for each in ([request, request.closing()] if request.parts else [request])]
    return found


class PodSet(pydantic.BaseModel):
    """Pods that are alike."""

    name: str
    pods: int
    requests: dict[str, int]
    "In whole units: thousandths of a core, bytes, devices."


class FlavorLine(pydantic.BaseModel):
    """Where a resource of a set would be taken from."""

    set: str
    resource: str
    flavor: str


class Now(pydantic.BaseModel):
    """What it waits for."""

    state: str
    why: list[str]
    ahead: list[str]
    holders: list[str]
    preempts: list[str]


class StageQuota(pydantic.BaseModel):
    """What one stage, or job, asks for, and the verdict."""

    node: str
    job: str
    kind: str
    namespace: str
    queue: str
    cluster_queue: str
    workloads: int
    pods: int
    sets: list[PodSet]
    beside: list[PodSet]
    state: str
    reasons: list[str]
    notes: list[str]
    flavors: list[FlavorLine]
    now: Now | None


class QuotaAnswer(pydantic.BaseModel):
    """``wfm quota --json``."""

    stages: list[StageQuota]


def plain(verdict: "Verdict", waiting: "Waiting | None") -> StageQuota:
    """A verdict for scripts."""
    gang = verdict.gang
    values: dict[str, Any] = {
        "node": gang.node, "job": gang.job, "kind": gang.kind, "namespace": gang.namespace, "queue": gang.queue,
        "cluster_queue": verdict.queue, "workloads": gang.copies, "pods": gang.pods,
        "sets": [{"name": each.name, "pods": each.count, "requests": dict(each.requests)} for each in gang.sets],
        "beside": [{"name": each.name, "pods": each.count, "requests": dict(each.requests)} for each in gang.beside],
        "state": verdict.state, "reasons": list(verdict.reasons), "notes": list(verdict.notes),
        "flavors": [
            {"set": name, "resource": resource, "flavor": flavor}
            for (name, resource), flavor in (verdict.choice or {}).items()
        ],
        "admitted_pods": verdict.pods or gang.pods,
        "now": None if waiting is None else {
            "state": waiting.state, "why": list(waiting.why), "ahead": list(waiting.ahead), "holders": list(waiting.holders),
            "preempts": list(waiting.preempts),
        },
    }  # fmt: skip
    return StageQuota.model_validate(values)


def asks(gang: "Gang") -> str:
    """What a gang asks for, in a line: ``4 x (cpu 112, memory 1856Gi, nvidia.com/gpu 8), all at once``."""
    from wfm.cluster.quota.amounts import shown

    said = []
    for pods in gang.sets:
        each = ", ".join(f"{name} {shown(name, count)}" for name, count in sorted(pods.requests.items()) if count)
        said.append(f"{pods.count * gang.copies} x ({each})")
    how = "each for itself" if gang.copies > 1 else "all at once" if gang.pods > 1 and gang.queue else ""
    return " and ".join(said) + (f", {how}" if how else "")


def _show(verdicts: Sequence["Verdict"], waits: Sequence["Waiting | None"]) -> None:
    shown = table("stage", "queue", "verdict", prose="what it asks for, and why")
    for verdict, waiting in zip(verdicts, waits, strict=True):
        gang = verdict.gang
        flavors = sorted(set((verdict.choice or {}).values()))
        why = [*verdict.reasons, *verdict.notes, *([f"flavor {', '.join(flavors)}"] if flavors else [])]
        now = [f"now: {'; '.join((waiting.state, *waiting.why))}"] if waiting else []
        shown.row(gang.node or gang.job, gang.queue or "-", verdict.state, "; ".join([asks(gang), *why, *now]))
    show_table(shown)
    counts = {
        state: sum(each.state == state for each in verdicts) for state in dict.fromkeys(v.state for v in verdicts)
    }
    say(
        ", ".join(f"{count} {state}" for state, count in counts.items())
        or "everything is made already: nothing is asked for"
    )


def _code(verdicts: Sequence["Verdict"], waits: Sequence["Waiting | None"]) -> int:
    from wfm.cluster.quota import FAILED

    if any(each.state in FAILED for each in verdicts) or any(each and each.state == "deactivated" for each in waits):
        return InputError.exit_code
    return TryAgain.exit_code if any(each.state in ("held", "unknown") for each in verdicts) else 0
