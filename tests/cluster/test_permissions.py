"""What a launcher asks of the API server is what the Role of the guide gives it, and no more is given."""

from typing import Any

import pytest

from tests.cluster.conftest import MakeWorld, follow
from tests.cluster.stage import End, Script
from tests.contracts.test_cluster_guide import objects
from wfm.cluster.api import Api, Resource

Right = tuple[str, str, str]


def given() -> set[Right]:
    """(group, plural, verb) of the guide's Role."""
    (role,) = [one for one in objects() if one["kind"] == "Role"]
    return {
        (group, plural, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for plural in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_role_of_the_guide_is_what_launchers_use(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[Right] = set()
    right = Api._call

    def noted(self: Api, method: str, verb: str, resource: Resource, *rest: Any, **more: Any) -> Any:
        used.add((resource.group, resource.plural, verb))
        return right(self, method, verb, resource, *rest, **more)

    monkeypatch.setattr(Api, "_call", noted)
    for training, kinds in (("pytorchjob", ("torchjob", "daskjob", "container")), ("trainjob", ("torchjob",))):
        world = make_world(training_job=training)
        for kind in kinds:
            script = Script(ends=(End("crash", 70), End()))
            asked = world.ask(kind, kind=kind, script=script)
            assert follow(world, asked, lost=1)[asked.key].outcome == "done"
    assert used <= given()
    names = {(group, plural) for group, plural, _ in used}
    rare = {("", "events")}  # only of a job that has no pods for a while
    assert {(group, plural) for group, plural, _ in given()} == names | rare
