"""`wfm artifacts history`, `watch`, and what `--json` answers: each held against its published model."""

import json
import threading
import time
from pathlib import Path

import pydantic
import pytest
from typer.testing import CliRunner, Result

from pipelines.commands import artifact_answers as answer
from pipelines.commands.artifacts import app
from wfm.artifacts import Store
from wfm.artifacts.names import Seen
from wfm.errors import InputError, TryAgain

OLD, NEW, WORSE = ("1" * 64, "2" * 64, "3" * 64)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A model that was promoted by a run and by hand, and a candidate."""
    store = Store.open(tmp_path / "store", {"fsync": False})
    for key, inputs in ((OLD, {}), (NEW, {"before": OLD}), (WORSE, {})):
        with store.attempt(key) as attempt:
            (attempt.path / f"{key[0]}.bin").write_bytes(b"a" * 100)
            (attempt.path / "b.bin").write_bytes(b"b")
            attempt.commit(stage="publish_model", kind="model", inputs=inputs)
    store.promote_through("model", "m", OLD, lambda _: Seen(True, "", ("nobody bears the name yet",)), by="run first")
    time.sleep(0.01)  # records tell milliseconds
    store.promote("model", "m", NEW, by="ann@desk")
    time.sleep(0.01)
    store.promote_through("model", "m", WORSE, lambda _: Seen(False, NEW, ("PSNR -2.00 dB: worse",)), by="run second")
    return store


def ask(store: Store, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--store", store.url])


def said(store: Store, *words: str) -> str:
    done = ask(store, *words)
    assert done.exit_code == 0, done.output
    return done.output


def test_history_says_who_when_and_what_the_gate_saw(store: Store) -> None:
    candidate, by_hand, first = said(store, "history", "model/m").splitlines()
    assert candidate.startswith("model/m@candidate 1 is 333333333333 since 20")
    assert candidate.endswith("by run second, did not pass: PSNR -2.00 dB: worse")
    assert by_hand.startswith("model/m@latest 2 is 222222222222 since 20")
    assert by_hand.endswith(" UTC, by ann@desk")
    assert first.endswith("by run first, passed: nobody bears the name yet")
    assert said(store, "history", "model/m@latest", "--limit", "1") == by_hand + "\n"
    error = ask(store, "history", "model/n").exception
    assert isinstance(error, InputError)
    assert "there is no model/n@latest: the names are model/m@candidate" in str(error)
    for wrong in ("model", "model/", "model/m@"):
        assert "is not of the form KIND/NAME" in str(ask(store, "history", wrong).exception)


def test_history_passes_over_a_damaged_record(store: Store) -> None:
    path = store.objects.local_path("refs/model/m/latest/00000002.json")
    assert path is not None
    path.write_text("{")
    output = said(store, "history", "model/m@latest")
    assert "model/m@latest 1 is 111111111111" in output


def test_watch_tells_of_every_change_once_and_in_order(store: Store) -> None:
    lines = said(store, "watch", "model/m", "--since", "0", "--timeout", "0.1", "--json").splitlines()
    assert [answer.PromotionRow.model_validate_json(line).number for line in lines] == [1, 2]
    assert "222222222222" in said(store, "watch", "model/m", "--since", "1", "--once")
    turns = threading.Thread(target=lambda: [store.promote("model", "m", key) for key in (OLD, NEW, OLD, NEW)])
    turns.start()
    told = said(store, "watch", "model/m", "--since", "2", "--timeout", "3", "--interval", "0.2").splitlines()
    turns.join()
    assert [line.split()[1] for line in told] == ["3", "4", "5", "6"]


def test_watch_waits_for_a_name_that_is_not_there_and_gives_up_in_time(store: Store) -> None:
    done = ask(store, "watch", "model/m", "--timeout", "0.3", "--interval", "0.2")
    assert isinstance(done.exception, TryAgain), "exit code 75"
    assert "model/m@latest did not change within 0.3 s" in str(done.exception)
    timer = threading.Timer(0.3, lambda: store.promote("model", "later", OLD))
    timer.start()
    assert "model/later@latest 1" in said(
        store, "watch", "model/later", "--once", "--interval", "0.2", "--timeout", "60"
    )


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (("list", "--all"), answer.ArtifactList),
        (("show", "model/m"), answer.Shown),
        (("files", "model/m"), answer.Files),
        (("diff", OLD, NEW), answer.Difference),
        (("verify", "--all"), answer.Verified),
        (("lineage", "model/m", "--sources"), answer.Ancestry),
        (("promote", OLD, "model/m"), answer.PromotionRow),
        (("history", "model/m"), answer.History),
        (("pull", "model/m", "OUT"), answer.Pulled),
        (("invalidate", WORSE, "--reason", "the lamp"), answer.Invalidated),
        (("gc", "--min-age-hours", "0", "--wait", "0", "--keep-runs", "0"), answer.Collected),
        (("collected",), answer.Collections),
        (("skipped", "model/m"), answer.Skipped),
        (("purge", "--video", "a" * 64), answer.PurgeAnswer),
    ],
)
def test_every_answer_is_one_document_of_its_model(
    store: Store, tmp_path: Path, words: tuple[str, ...], model: type[pydantic.BaseModel]
) -> None:
    given = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    done = ask(store, *given, "--json")
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    assert model.model_validate(found).model_dump(mode="json") == found
    if model is not answer.Shown:  # the manifest's own fields stand beside
        extra = {name: False for name in found if name not in model.model_fields}
        assert extra == {}


def test_all_commands_that_answer_take_json() -> None:
    from typer.main import get_command

    commands = get_command(app).commands  # type: ignore[attr-defined]
    without = [name for name, one in commands.items() if "--json" not in {o for p in one.params for o in p.opts}]
    assert without == []


def test_a_collection_is_told_and_kept(store: Store, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"keep_days": 0, "wait_seconds": 0, "keep_runs": 0, "keep_candidates": 0}')
    assert "artifacts/333333333333" in said(store, "gc", "--policy", str(policy), "--dry-run")
    assert store.has(WORSE)
    assert "artifacts/333333333333" in said(store, "gc", "--policy", str(policy))
    assert not store.has(WORSE)
    told = said(store, "collected")
    assert "1 commit (101 B)" in told
    assert "artifacts/333333333333 101 B: no name, run or lease needs it" in told


def test_a_clock_is_given_the_same_policy(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line that the clock starts does what this one would; a wrong file is said at once."""
    from pipelines.engines import schedule

    served: list[tuple[list[str], str, str]] = []
    monkeypatch.setattr(schedule, "serve_command", lambda command, name, cron: served.append((command, name, cron)))
    policy = tmp_path / "policy.json"
    policy.write_text("{}")
    asked = (
        "gc",
        "--policy",
        str(policy),
        "--keep-runs",
        "0",
        "--min-age-hours",
        "0",
        "--wait",
        "0",
        "--cron",
        "0 4 * * *",
    )
    said(store, *asked)
    ((command, name, cron),) = served
    assert (name, cron) == ("retention", "0 4 * * *")
    words = command[command.index("artifacts") + 1 :]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert store.has(WORSE), "three candidates stay unless the policy says otherwise"
    policy.write_text('{"keep": 1}')
    assert "keep" in str(ask(store, "gc", "--policy", str(policy), "--cron", "0 4 * * *").exception)
    assert len(served) == 1
