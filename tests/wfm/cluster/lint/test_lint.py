"""Every rule of the lint refuses what it is for, and nothing that is good."""

import collections
import copy
import json
import random

import pytest

from pipelines.stages import TABLE
from tests.wfm.cluster.lint import good, of_jobs, of_places, of_pods, of_roles, of_services, of_workflows
from tests.wfm.cluster.lint.change import Mutation
from wfm.cluster.lint import FILES, RULES, check, lint
from wfm.cluster.objects import build, trainjob
from wfm.cluster.resources import Resources
from wfm.errors import ConfigError

MUTATIONS = [*of_jobs.ALL, *of_pods.ALL, *of_workflows.ALL, *of_places.ALL, *of_roles.ALL, *of_services.ALL]


def _name(mutation: Mutation) -> str:
    return f"{mutation.rule}: {mutation.on}, {mutation.what}"


@pytest.mark.parametrize("name", good.SETS)
def test_what_is_good_has_no_fault(name):
    objects = good.SETS[name]()
    assert lint(objects, good.settings_of(name)) == []
    assert lint(objects, None) == [], "without settings"
    assert lint([{"apiVersion": "v1", "kind": "List", "items": objects}], good.settings_of(name)) == []
    check(objects, good.settings_of(name))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("settings", [good.SETTINGS, good.TRAINJOB_SETTINGS], ids=["pytorchjob", "trainjob"])
def test_every_stage_is_built_without_a_fault(row, settings):
    sizes = [row.resources, Resources(cpu=3.5, memory_gib=31, gpu=2, replicas=7, rdma=1, ephemeral_gib=0.5, shm_gib=2)]
    for resources in sizes:
        for parts in (0, 3) if row.kind == "daskjob" else (0,):
            asked = good.request(
                row.name, row.kind, row.image, resources=resources, timeout_seconds=row.timeout_seconds, parts=parts
            )
            for each in (asked, asked.closing()) if parts else (asked,):
                assert lint([build(each, settings, attempt=2, avoid=["a", "b"])], settings) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=_name)
def test_a_fault_is_refused_by_its_rule_and_no_other(mutation):
    objects = mutation.made(good.SETS[mutation.on]())
    faults = lint(objects, good.settings_of(mutation.on))
    assert {fault.rule for fault in faults} == {mutation.rule}, "\n".join(map(str, faults))
    for fault in faults:
        assert fault.where.count(": ") == 1 or fault.rule == "object"
        assert fault.says
        assert fault.value
    with pytest.raises(ConfigError, match=f"\\[{mutation.rule}\\]"):
        check(objects, good.settings_of(mutation.on))


@pytest.mark.parametrize(("rule", "settings", "name"), of_jobs.OTHER_SETTINGS)
def test_a_fault_against_the_settings_is_refused(rule, settings, name):
    assert {fault.rule for fault in lint(good.SETS[name](), settings)} == {rule}


def test_every_rule_has_a_mutation_and_every_file_rules():
    tried = collections.Counter([*(each.rule for each in MUTATIONS), *(rule for rule, _, _ in of_jobs.OTHER_SETTINGS)])
    assert set(tried) == set(RULES)
    assert {rule.look.__module__ for rule in RULES.values()} == {file.__name__ for file in FILES}
    assert all(rule.holds and rule.look.__doc__ for rule in RULES.values())


def test_a_rule_that_is_taken_out_is_missed(monkeypatch):
    """The broken twin: without its rule a mutation passes, so the tests above are about rules and not about luck."""
    for rule in list(RULES):
        one = next((each for each in MUTATIONS if each.rule == rule), None)
        if one is not None:
            with monkeypatch.context() as patch:
                patch.delitem(RULES, rule)
                assert lint(one.made(good.SETS[one.on]()), good.settings_of(one.on)) == []


def test_a_secret_is_not_shown():
    for mutation in MUTATIONS:
        if mutation.rule == "literal-secret":
            text = "\n".join(map(str, lint(mutation.made(good.SETS[mutation.on]()), good.SETTINGS)))
            assert not any(word in text for word in ("abcdef", "hunter2", "key:secret", "AKIA", "not-a-known"))


def test_names_leave_room_for_what_is_appended():
    """A PyTorchJob of 55 characters and ten workers: ``-worker-9`` fits; with eleven it does not."""
    objects = [good.training()]
    name = "t" * 54
    job = objects[0]
    del job["metadata"]["annotations"]["wfm.dev/generation"]
    job["metadata"]["name"] = job["spec"]["elasticPolicy"]["rdzvId"] = name
    assert "name" not in {fault.rule for fault in lint(objects, None)}
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = 11
    assert "name" in {fault.rule for fault in lint(objects, None)}


def test_a_runtime_alone_and_a_trainjob_alone_are_good():
    settings = good.TRAINJOB_SETTINGS
    assert lint([trainjob.runtime(settings)], settings) == []
    assert lint([good.training(settings)], settings) == []


def test_a_budget_that_lets_some_go_is_good():
    for spec in ({"minAvailable": 3}, {"minAvailable": "50%"}, {"maxUnavailable": "25%"}):
        budget = good.budget()
        budget["spec"] = {"selector": budget["spec"]["selector"], **spec}
        assert lint([good.training(), budget], good.SETTINGS) == []


def test_variables_that_only_sound_secret_are_good():
    job = good.evaluation()
    variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
    for name, value in (
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MAX_TOKENS", "4096"),
        ("DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY", "/tls/key.pem"),
        ("WFM_STORE_OPTIONS", '{"endpoint_url": "https://s3.example:9000", "anon": false}'),
    ):
        variables.append({"name": name, "value": value})
    variables.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}})
    assert lint([job], good.SETTINGS) == []


_JUNK = (
    None,
    True,
    -1,
    2**70,
    1.5,
    "",
    "x",
    "{{",
    "\x1b[31m",
    [],
    {},
    [[]],
    [None, 3, "a"],
    {"a": None},
    {"kind": []},
    "9" * 40,
)


@pytest.mark.parametrize("name", good.SETS)
def test_what_comes_from_outside_never_fails_a_rule(name):
    """Anything at any place: an answer, and no exception."""
    chance = random.Random(name)
    for _ in range(60):
        objects = json.loads(json.dumps(good.SETS[name]()))
        for _ in range(chance.randint(1, 4)):
            here: object = objects
            while isinstance(here, dict | list) and here:
                place = chance.choice(list(here) if isinstance(here, dict) else range(len(here)))
                inner = here[place]  # type: ignore[index]
                if chance.random() < 0.15 or not (isinstance(inner, dict | list) and inner):
                    here[place] = copy.deepcopy(chance.choice(_JUNK))  # type: ignore[index]
                    break
                here = inner
        for settings in (good.settings_of(name), None):
            for fault in lint(objects, settings):
                assert str(fault).isprintable()


@pytest.mark.parametrize(
    "text", ["a" * 10**6, "://" + "a" * 10**6, "eyJ-" * 250_000, "x://a?b=" * 100_000, "://b " * 200_000]
)
def test_a_long_text_is_no_trap(text):
    """Patterns that try every beginning against every end would take hours."""
    workflow = json.loads(json.dumps(good.workflow()))
    workflow["spec"]["arguments"] = {"parameters": [{"name": "a", "value": text}]}
    workflow["spec"]["templates"][2]["retryStrategy"]["expression"] = text
    workflow["spec"]["templates"][2]["container"]["image"] = text
    workflow["metadata"]["labels"] = {"a": text}
    workflow["spec"]["templates"][0]["dag"]["tasks"][1]["depends"] = text
    assert {"retry-expression", "image-digest", "graph"} <= {fault.rule for fault in lint([workflow], good.SETTINGS)}


def test_many_tasks_are_no_trap():
    workflow = json.loads(json.dumps(good.workflow()))
    tasks = [{"name": f"t{n}", "template": "select-clips", "depends": f"t{n + 1}.Succeeded"} for n in range(1000)]
    workflow["spec"]["templates"][0]["dag"]["tasks"] = [
        *tasks,
        {"name": "t1000", "template": "train", "when": "{{tasks.t0.status}} == b"},
    ]
    assert lint([workflow], good.SETTINGS) == []


def test_a_cron_job_is_held_to_the_same():
    asked = good.request("select_clips", "container", "curation")
    template = build(asked, good.SETTINGS)["spec"]["template"]
    job = {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    spec = {"schedule": "0 25 * * *", "jobTemplate": {"spec": {"template": job}}}
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c", "namespace": "wfm"}, "spec": spec}
    rules = {fault.rule for fault in lint([cron], good.SETTINGS)}
    assert rules == {"cron-zone", "cron-deadline", "cron-concurrency", "cron-schedule"}
    spec |= {
        "schedule": "0 5 * * *",
        "timeZone": "Etc/UTC",
        "startingDeadlineSeconds": 600,
        "concurrencyPolicy": "Forbid",
    }
    assert lint([cron], good.SETTINGS) == []


def test_no_object_at_all():
    assert lint([], None) == []
    assert {fault.rule for fault in lint([None, 3, [], {}, {"kind": "Pod"}], good.SETTINGS)} == {"object"}
