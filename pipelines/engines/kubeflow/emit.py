"""A flow as files for Kubeflow Pipelines: the settings that tasks read, a template, and what starts it at times."""

import itertools
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from pipelines.engines.flow import Flow, Times, settings_map
from pipelines.engines.kubeflow.template import environment, template
from wfm.cluster import pod
from wfm.cluster.lint import lint
from wfm.cluster.settings import ClusterSettings
from wfm.credentials import carries_credentials
from wfm.errors import ConfigError

Json = dict[str, Any]

ACCOUNT = "launcher"
"""The service account of a run (docs/kubeflow.md): KFP has one for all tasks."""


def emit(flow: Flow, settings: ClusterSettings) -> dict[str, list[Json]]:
    """Name of a file -> its documents: the settings that tasks read, the package of a template (pipeline spec and platform
    spec), and what starts it at times. Raises ConfigError for a secret where all could read it, for what KFP cannot keep (such
    times, a notice), and where settings name no control image; MissingPackage without kfp."""
    _refuse_secrets(flow, settings)
    if flow.notice is not None:
        raise ConfigError(
            f"--notice {flow.notice.image}: KFP tells nobody at the end: leave it out, or compile for argo"
        )
    lines = _lines(flow.times) if flow.times else []
    whole, plain = template(flow, settings), import_module("google.protobuf.json_format").MessageToDict
    pipeline, platform = plain(whole.pipeline_spec), plain(whole.platform_spec)
    made = {"settings.yaml": [settings_map(flow, settings)], "pipeline.yaml": [pipeline, platform]}
    for number, line in enumerate(lines, 1):
        package = {"pipeline_spec": pipeline, "platform_spec": platform}
        made[f"recurringrun-{number}.yaml"] = [_recurring_run(f"{flow.name}-{number}", line, package)]
    return made


def _recurring_run(name: str, line: str, package: Json) -> Json:
    """What KFP's API takes (``POST /apis/v2beta1/recurringruns``): one run at a time, and of several missed times the last."""
    return {
        "display_name": name,
        "mode": "ENABLE",
        "max_concurrency": "1",
        "no_catchup": True,
        "trigger": {"cron_schedule": {"cron": line}},
        "service_account": ACCOUNT,
        "runtime_config": {"parameters": {}},
        "pipeline_spec": package,
    }


def _lines(times: Times) -> list[str]:
    """The times as KFP's controller reads them: seconds first. Raises ConfigError for what it cannot keep."""
    if times.zone not in ("Etc/UTC", "UTC"):
        raise ConfigError(
            f"--zone {times.zone}: a recurring run of KFP has no zone of its own, CRON_SCHEDULE_TIMEZONE of its controller "
            "counts (UTC unless changed): leave --zone out, or compile for argo"
        )
    if times.stop_after_failures:
        raise ConfigError(
            f"--stop-after-failures {times.stop_after_failures}: KFP starts the next run whatever became of the last"
        )
    for line in times.lines:
        body = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cron"}, "spec": {"schedule": line}}
        _held_against("cron-schedule", body, f"--cron {line!r}")
        if len(line.split()) != 5 or re.search(r"(?<!/)7", line.split()[4]):
            raise ConfigError(f"--cron {line!r}: give five fields, such as '0 3 * * *', with 0 for Sunday")
    found = _joined(times.lines)
    if len(found) > 1:
        raise ConfigError(
            f"--cron {' --cron '.join(map(repr, found))}: KFP starts each line by a recurring run of its own, and nothing "
            "keeps runs of two from going on at once: give lines that differ in one field (they become one), or compile for "
            "argo, where one CronWorkflow has all of them and one run at a time"
        )
    return [f"0 {line}" for line in found]


def _joined(lines: Sequence[str]) -> list[str]:
    """The same times in fewer lines: two that differ in one field, of which neither is a star, become one."""
    several = [line.split() for line in dict.fromkeys(lines)]
    for one, other in itertools.combinations(several, 2):
        differ = [place for place, both in enumerate(zip(one, other, strict=True)) if both[0] != both[1]]
        if len(differ) == 1 and not any(each[differ[0]].startswith("*") for each in (one, other)):
            both = list(one)
            both[differ[0]] = ",".join(dict.fromkeys([*one[differ[0]].split(","), *other[differ[0]].split(",")]))
            rest = [each for each in several if each is not one and each is not other]
            return _joined([" ".join(each) for each in (both, *rest)])
    return [" ".join(each) for each in several]


def _refuse_secrets(flow: Flow, settings: ClusterSettings) -> None:
    """Raises ConfigError for what would stand in a template, where everybody who may see pipelines reads it."""
    texts = {"--store": flow.store, "--videos": flow.videos, "--set": " ".join(flow.overrides)}
    for option, text in texts.items():
        if carries_credentials(text):
            raise ConfigError(
                f"{option} carries credentials, which a template would show to everybody: give the address without them, and "
                "name a secret that holds them in `secrets` of the cluster's settings"
            )
    one = {"name": "task", "env": pod.variables(environment(settings))}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "task"}, "spec": {"containers": [one]}}
    _held_against("literal-secret", body, "environment of the cluster's settings (name a secret in its `secrets`)")


def _held_against(rule: str, body: Json, what: str) -> None:
    """Raises ConfigError where an object breaks a rule of our lint, which knows no KFP."""
    for fault in lint([body], None):
        if fault.rule == rule:
            raise ConfigError(f"{what}: {fault.says}")
