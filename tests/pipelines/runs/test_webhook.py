"""Whoever wants to hear of a failure: against a real server that fails twice, redirects, or never answers well."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from wfm_fakes.workshop import Workshop

from pipelines.runs.events import events
from pipelines.runs.seen import see
from pipelines.runs.state import NodeState, RunState, process_started, read_state
from pipelines.runs.submission import WORKFLOW, asked_now, create_submission, write_submission
from pipelines.runs.untold import tell_untold
from pipelines.runs.webhook import FILE, sign, tell_failure, verify, webhook
from pipelines.wfm_home import home
from tests.pipelines.runs.hook import SECRET, Receiver
from wfm.artifacts import schema
from wfm.artifacts.address import utc_now
from wfm.artifacts.runs import Run
from wfm.errors import InputError


def failed(workshop: Workshop) -> tuple[Run, RunState]:
    run = workshop.store.runs.create({"pipeline": "p", "profile": "demo", "team": "vision", "nodes": []})
    reason = "cannot read https://u:hush@host/v?X-Amz-Signature=hushhush \x1b[31m"
    node = NodeState(stage="cut", state="failed", outcome="wrong_input", reason=reason, attempts=2)
    return run, RunState(run_id=run.id, pipeline="p", profile="demo", state="failed", nodes={"cut": node})


def test_a_receiver_that_fails_twice_hears_it_once_signed_and_without_secrets(
    receiver: Receiver, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    run, state = failed(workshop)
    receiver.answers = [503, 429]
    waited: list[float] = []
    assert tell_failure(run, state, wait=waited.append)
    assert waited == [1.0, 2.0], "longer each time"
    assert len(receiver.came) == 3
    assert len({headers["Webhook-Id"] for headers, _ in receiver.came}) == 1, "one delivery, whatever the tries"
    headers, body = receiver.came[-1]
    seen: dict[str, float] = {}
    told = verify(body, headers, SECRET, seen)
    assert told["type"] == "run.failed"
    data = told["data"]
    assert (data["run"], data["team"], data["state"]) == (run.id, "vision", "failed")
    assert [(one["stage"], one["outcome"], one["tries"]) for one in data["failed"]] == [("cut", "wrong_input", 2)]
    assert b"hush" not in body
    assert "\x1b" not in data["failed"][0]["reason"]
    with pytest.raises(InputError, match="here before"):
        verify(body, headers, SECRET, seen)
    assert [event.words for event in events(run) if event.kind == "told"] == [
        "told the webhook at 127.0.0.1 (answer 204, try 3)"
    ]
    assert not caplog.records


def test_what_is_forged_old_or_changed_is_refused(receiver: Receiver, workshop: Workshop) -> None:
    tell_failure(*failed(workshop))
    headers, body = receiver.came[0]
    at = int(headers["Webhook-Timestamp"])
    assert verify(body, headers, SECRET, now=at + 299)
    wrong = {
        "it is repeated": (body, headers, SECRET, at + 301.0),
        "one of the clocks": (body, headers, SECRET, at - 301.0),
        "forged": (body.replace(b"vision", b"theirs"), headers, SECRET, at + 1.0),
        "the secret is another": (body, headers, SECRET + "x", at + 1.0),
        "is forged": (body, {**headers, "Webhook-Timestamp": str(at + 100)}, SECRET, at + 100.0),
        "forged, or": (body, {**headers, "Webhook-Id": "another"}, SECRET, at + 1.0),
        "not of this body": (body, {**headers, "Webhook-Signature": "v1,AAAA é"}, SECRET, at + 1.0),
        "the signature is not": (body, {**headers, "Webhook-Signature": "v1,\udce9"}, SECRET, at + 1.0),
        "no webhook-id": (body, {**headers, "Webhook-Id": "\udce9"}, SECRET, at + 1.0),
        "at least 16 letters": (body, {**headers, **sign(body, "", "any", at)}, "", at + 1.0),
        "none of ours": (body, {}, SECRET, at + 1.0),
        "no webhook-timestamp": (body, {**headers, "Webhook-Timestamp": "-1"}, SECRET, at + 1.0),
    }
    for words, (given, of, secret, now) in wrong.items():
        with pytest.raises(InputError, match=words):
            verify(given, of, secret, now=now)


@pytest.mark.parametrize(
    ("answers", "requests", "words"),
    [([404], 1, "answered 404, which another"), ([307], 1, "answered 307"), ([500] * 9, 5, "answered 500, 5 times")],
)
def test_who_does_not_take_it_is_named_and_the_run_ends_as_it_would(
    receiver: Receiver,
    workshop: Workshop,
    caplog: pytest.LogCaptureFixture,
    answers: list[int],
    requests: int,
    words: str,
) -> None:
    """A redirect is not followed: it would show payload and signature to somebody else."""
    receiver.answers = answers
    run, state = failed(workshop)
    with caplog.at_level(logging.DEBUG):
        assert not tell_failure(run, state, wait=lambda _: None)
    assert len(receiver.came) == requests
    (told,) = [event for event in events(run) if event.kind == "told"]
    assert words in told.words
    assert told.failed
    assert "127.0.0.1" in caplog.text
    assert "a-password" not in caplog.text, "the path of an address is often a password"
    assert SECRET not in caplog.text


def test_nobody_there_is_no_error(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFM_WEBHOOK", "http://127.0.0.1:1/x")
    monkeypatch.setenv("WFM_WEBHOOK_SECRET", SECRET)
    run, state = failed(workshop)
    assert not tell_failure(run, state, wait=lambda _: None)
    assert any("could not be reached" in event.words for event in events(run))


def test_a_failing_run_tells_by_itself_and_its_stages_do_not_see_the_secret(
    receiver: Receiver, workshop: Workshop
) -> None:
    summary, run = workshop.run(workshop.plan({"a": ([], {"fail": ["wrong_input"]})}))
    assert summary.state.state == "failed"
    headers, body = receiver.came[0]
    assert verify(body, headers, SECRET)["data"]["run"] == run.id
    workshop.forget()
    assert workshop.run(workshop.plan({"b": ([], {})}))[0].state.state == "done"
    assert len(receiver.came) == 1, "who wants to hear of failures hears of nothing else"


def test_an_address_or_a_secret_that_is_none_is_said_before_work_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WFM_HOME", str(tmp_path))
    monkeypatch.delenv("WFM_WEBHOOK", raising=False)
    assert webhook() is None
    monkeypatch.setenv("WFM_WEBHOOK_SECRET", SECRET)
    for url in ("ftp://x/y", "x", "https://u:p@host/", "https://ho st/"):
        monkeypatch.setenv("WFM_WEBHOOK", url)
        with pytest.raises(InputError, match="WFM_WEBHOOK: ") as error:
            webhook()
        assert url not in str(error.value)
    monkeypatch.setenv("WFM_WEBHOOK", "https://host/x")
    for secret in ("", "short", "whsec_%%%"):
        monkeypatch.setenv("WFM_WEBHOOK_SECRET", secret)
        with pytest.raises(InputError, match="WFM_WEBHOOK"):
            webhook()
    monkeypatch.delenv("WFM_WEBHOOK")
    file = home().parent / FILE
    file.write_text(json.dumps({"url": "https://host/x", "secret": SECRET}))
    os.chmod(file, 0o644)
    with pytest.raises(InputError, match="is open to others"):
        webhook()
    os.chmod(file, 0o600)
    hook = webhook()
    assert hook is not None
    assert (hook.url, hook.host) == ("https://host/x", "host")
    assert "host/x" not in repr(hook)
    assert SECRET not in repr(hook)


def killed(workshop: Workshop) -> Run:
    """A run whose process is gone, and whose last word is that it is at work."""
    run = workshop.store.runs.create({"pipeline": "p", "profile": "demo", "nodes": []})
    nodes = {"cut": NodeState(stage="cut", state="running", started=time.time())}
    state = RunState(run_id=run.id, pipeline="p", started=time.time(), updated=time.time(), nodes=nodes)
    state.host, state.pid = socket.gethostname(), 2**22 + 1
    run.write("state.json", state.model_dump_json())
    return run


def never_began(workshop: Workshop) -> Run:
    """A submitted run whose process ended before its first stage."""
    run = workshop.store.runs.create({"pipeline": "p", "profile": "demo", "nodes": []})
    note = asked_now(run, "local", {}, background=True, host=socket.gethostname(), pid=2**22 + 1)
    assert create_submission(run, note)
    return run


@pytest.mark.parametrize("end", [killed, never_began])
def test_a_run_that_could_not_say_so_is_told_once_by_who_looks_next(
    receiver: Receiver, workshop: Workshop, end: Callable[[Workshop], Run]
) -> None:
    run = end(workshop)
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: tell_untold([run]), range(4)))
    assert sorted(told) == [[], [], [], [run.id]], "of several at once one tells"
    assert tell_untold([run]) == []
    (came,) = receiver.came
    assert verify(came[1], came[0], SECRET)["data"]["state"] == "dead"
    begun = asked_now(run, "local", {}, background=True, host=socket.gethostname(), pid=2**22 + 1)
    write_submission(run, begun.model_copy(update={"begun_at": time.time() + 1}))
    assert tell_untold([run]) == [run.id], "begun again and killed again: that is another end"


def test_what_the_run_told_itself_is_not_told_again(receiver: Receiver, workshop: Workshop) -> None:
    assert workshop.run(workshop.plan({"a": ([], {"fail": ["wrong_input"]})}))[0].state.state == "failed"
    assert tell_untold(workshop.store.runs.list()) == []
    assert len(receiver.came) == 1


def test_what_is_at_work_long_over_or_silent_for_a_moment_elsewhere_is_told_of_nobody(
    receiver: Receiver, workshop: Workshop
) -> None:
    here, old, there = killed(workshop), killed(workshop), killed(workshop)
    for run, change in (
        (here, {"pid": os.getpid(), "process_started": process_started(os.getpid())}),
        (old, {"updated": time.time() - 8 * 86400.0, "started": 1.0}),
        (there, {"host": "another", "updated": time.time() - 100.0, "started": 1.0}),
    ):
        state = read_state(run)
        assert state is not None
        run.write("state.json", state.model_copy(update=change).model_dump_json())
    assert tell_untold([here, old, there]) == []
    state = read_state(there)
    assert state is not None
    run.write("state.json", state.model_copy(update={"updated": time.time() - 1000.0}).model_dump_json())
    assert tell_untold([here, old, there]) == [there.id], "no clock is that wrong"


def test_who_was_killed_while_it_told_is_followed_by_another_with_the_same_delivery(
    receiver: Receiver, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = killed(workshop)
    with monkeypatch.context() as patched:

        def dies(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr("pipelines.runs.webhook._post", dies)
        with pytest.raises(KeyboardInterrupt):
            tell_untold([run])
    assert tell_untold([run]) == [], "it may be at it"
    monkeypatch.setattr("pipelines.runs.webhook.age_seconds", lambda _: 301.0)
    assert tell_untold([run]) == [run.id]
    (name,) = run.names("webhook")
    assert (run.record(f"webhook/{name}") or {})["delivery"] == receiver.came[0][0]["Webhook-Id"]
    assert tell_untold([run]) == []


def test_a_receiver_that_trickles_keeps_nobody(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then restarts the time limit of a socket: the whole has one."""
    over = threading.Event()

    def trickle(listening: socket.socket) -> None:
        while not over.is_set():
            with suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    while not over.wait(0.2):
                        connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.5)
        thread = threading.Thread(target=trickle, args=(listening,))
        thread.start()
        monkeypatch.setenv("WFM_WEBHOOK", f"http://127.0.0.1:{listening.getsockname()[1]}/")
        monkeypatch.setenv("WFM_WEBHOOK_SECRET", SECRET)
        run, begun = killed(workshop), time.monotonic()
        assert tell_untold([run, killed(workshop)], seconds=2.0) == []
        took = time.monotonic() - begun
        over.set()
        thread.join()
    assert took < 8.0
    assert any("no answer in 2 s" in event.words for event in events(run))


def test_commands_that_look_tell_and_a_wrong_address_keeps_nobody_from_looking(
    receiver: Receiver, workshop: Workshop, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = killed(workshop)
    code, _, err = cli("runs")
    assert (code, f"run {run.id} had ended and could not say so: the webhook was told now" in err) == (0, True)
    assert "told now" not in cli("status", run.id)[2]
    assert len(receiver.came) == 1
    monkeypatch.setenv("WFM_WEBHOOK", "ftp://x")
    assert cli("runs")[0] == 0


def on_a_cluster(workshop: Workshop, *outcomes: str) -> Run:
    """A run that Argo was asked for, after these tries at its stage."""
    node = {"name": "cut", "stage": "cut", "key": "1" * 64}
    run = workshop.store.runs.create({"pipeline": "p", "profile": "demo", "nodes": [node]})
    assert create_submission(run, asked_now(run, "argo", {"pipeline": "p", "profile": "demo"}))
    for number, outcome in enumerate(outcomes, 1):
        run.append_attempt("cut", {"ranks": 1, "started_at": utc_now()})
        run.write_outcome("cut", number, {"outcome": outcome, "reason": "because", "finished_at": utc_now()})
    return run


def test_on_a_cluster_it_failed_where_no_other_try_changes_it(receiver: Receiver, workshop: Workshop) -> None:
    """Nobody can ask its engine."""
    for outcomes, told in (((), 0), (("try_again",), 0), (("bug",), 0), (("wrong_input",), 1), (("bug",) * 9, 1)):
        run = on_a_cluster(workshop, *outcomes)
        assert tell_untold([run]) == [run.id] * told, outcomes
        assert tell_untold([run]) == [], "once"
    cancelled = on_a_cluster(workshop, "wrong_input")
    cancelled.request_cancel("me")
    assert tell_untold([cancelled]) == []


def test_on_a_cluster_it_failed_where_its_engine_says_so_which_is_asked_no_more_then(
    receiver: Receiver, workshop: Workshop
) -> None:
    """`bug` may be tried again: by its engine's word it is not, and one that nothing was heard of for long is not, either."""
    run, asked = on_a_cluster(workshop, "bug"), []

    def engine(of: Run) -> RunState | None:
        asked.append(of.id)
        return see(of) if len(asked) > 1 else None

    assert tell_untold([run], elsewhere=engine) == []
    assert tell_untold([run], elsewhere=engine) == [run.id]
    assert tell_untold([run], elsewhere=engine) == []
    assert len(asked) == 2
    (_, body) = receiver.came[0]
    assert [one["outcome"] for one in json.loads(body)["data"]["failed"]] == ["bug"]


def test_a_run_that_a_cluster_began_by_itself_is_one_of_a_cluster(receiver: Receiver, workshop: Workshop) -> None:
    run = workshop.store.runs.create({"pipeline": "p", "profile": "demo", "nodes": []}, "tick")
    run.create(WORKFLOW, schema.encode({"schema_version": 1, "uid": "u"}))
    state = RunState(run_id=run.id, pipeline="p", profile="demo", state="failed", started=time.time())
    assert tell_untold([run]) == []
    assert tell_untold([run], elsewhere=lambda _: state) == ["tick"]
