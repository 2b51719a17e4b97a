"""A cron line that really fires, through a whole Prefect server, which nobody else may use."""

import base64
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.engines.prefect_server import full_server, guarded, running_server, server_for_run
from pipelines.engines.schedule import check_cron, command_of
from pipelines.request import Request
from pipelines.wfm_home import api_login
from wfm.artifacts import Store
from wfm.errors import InputError

PLANTED = "import pathlib; pathlib.Path({mark!r}).touch(); raise ImportError('planted')\n"
JSON = {"Content-Type": "application/json"}


@dataclass
class Served:
    """A schedule that is being served, and what its runs note down."""

    process: "subprocess.Popen[bytes]"
    api: str
    note: Path
    log: Path
    planted: Path
    before: frozenset[str] = frozenset()
    "Flow runs of other tests, which share the database."

    def runs(self) -> list[dict[str, Any]]:
        """The flow runs that somebody asked for: the scheduler's own, and those of before, are left out."""
        wanted = {"limit": 200, "sort": "EXPECTED_START_TIME_DESC"}
        status, found = ask(f"{self.api}/flow_runs/filter", wanted, login())
        assert status == 200
        return [run for run in found if not run["auto_scheduled"] and run["id"] not in self.before]

    def deployment(self) -> str:
        status, found = ask(f"{self.api}/deployments/filter", {}, login())
        assert status == 200
        return str(found[0]["id"])

    def create(self, body: Any, headers: dict[str, str]) -> int:
        url = f"{self.api}/deployments/{self.deployment()}/create_flow_run"
        for _ in range(10):
            status = ask(url, body, headers)[0]
            if status != 503:  # Prefect's word for a data base that is busy: to be asked again
                break
            time.sleep(0.5)
        return int(status)


def login() -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(api_login().encode()).decode()}


def ask(url: str, body: Any = None, headers: dict[str, str] | None = None, method: str = "") -> tuple[int, Any]:
    """Status and answer; a body makes it a POST."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {**JSON, **(headers or {})}, method=method or None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A served schedule, started in a folder that holds modules by the names of those it imports."""
    folder = tmp_path_factory.mktemp("served")
    here = folder / "here"
    here.mkdir()
    for name in ("prefect", "uvicorn", "pipelines", "json", "colorama"):
        (here / f"{name}.py").write_text(PLANTED.format(mark=str(folder / "planted")))
    called = {"()": "subprocess.Popen", "args": ["touch", str(folder / "called")]}
    (here / "logging.yml").write_text(json.dumps({"version": 1, "formatters": {"a": called}}))
    (here / ".env").write_text(f"PREFECT_LOGGING_CONFIG_PATH={here / 'logging.yml'}\n")
    for name, table in (("prefect.toml", "logging"), ("pyproject.toml", "tool.prefect.logging")):
        (here / name).write_text(f"[{table}]\nconfig_path = '{here / 'logging.yml'}'\n")
    note = folder / "note"
    noted = f"import os, time; open({str(note)!r}, 'a').write(f'{{time.time()}}\\n')"
    due = [sys.executable, "-S", "-c", f"{noted}; time.sleep(100 if os.path.exists({str(folder / 'slow')!r}) else 0)"]
    code = f"from pipelines.engines.schedule import serve_command; serve_command({due!r}, 'test', '* * * * *')"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-P", "-c", code], cwd=here, stdout=log, stderr=log)
    try:
        wait_for(lambda: "UI at" in (folder / "log").read_text(), process, folder / "log")
        api = json.loads((Path(os.environ["WFM_HOME"]) / "prefect" / "server.json").read_text())["api"]
        new = Served(process, api, note, folder / "log", folder / "planted")
        yield replace(new, before=frozenset(run["id"] for run in new.runs()))
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()


def wait_for(
    condition: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path, seconds: float = 200
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.mark.timeout(300)
def test_nothing_is_done_without_the_password(served: Served) -> None:
    # the old server answered 201 to the first (and ran what it was sent), and 200 to all others
    assert served.create({"parameters": {"command": ["/bin/true"]}}, {}) == 401
    assert served.create({}, {"Authorization": "Basic " + base64.b64encode(b"wfm:wrong").decode()}) == 401
    assert served.runs() == []
    status, schema = ask(served.api.removesuffix("/api") + "/openapi.json")
    assert status == 200
    routes = [(path, method) for path, methods in schema["paths"].items() for method in methods]
    assert len(routes) > 100
    some = {"{id}": "00000000-0000-0000-0000-000000000000", "{name}": "x"}
    opened = []
    for path, method in routes:
        for name, value in some.items():
            path = path.replace(name, value)
        status, _ = ask(served.api + path.removeprefix("/api"), {} if method != "get" else None, {}, method.upper())
        if status != 401:
            opened.append(path.removeprefix("/api"))
    assert set(opened) <= {"/health", "/ready"}


@pytest.mark.timeout(300)
def test_no_websocket_opens_without_the_password(served: Served) -> None:
    from fastapi.routing import APIWebSocketRoute
    from prefect.server.api.server import API_ROUTERS
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    paths = [route.path for router in API_ROUTERS for route in router.routes if isinstance(route, APIWebSocketRoute)]
    assert len(paths) >= 4
    base = served.api.replace("http://", "ws://")
    for path in paths:
        url = base + path.replace("{work_pool_name}", "x")
        with connect(url, subprotocols=["prefect"]) as socket:  # type: ignore[list-item]
            socket.send(json.dumps({"type": "auth", "token": "wrong"}))
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=10)
        with pytest.raises(InvalidStatus, match="403"):
            connect(url, subprotocols=["prefect"], origin="http://evil.example")  # type: ignore[arg-type,list-item]


@pytest.mark.timeout(300)
def test_other_origins_and_strange_hosts_are_turned_away(served: Served) -> None:
    own = served.api.removesuffix("/api")
    port = own.rpartition(":")[2]
    # the old server answered 201 with `access-control-allow-origin: *` to each
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{int(port) - 1}", f"http://localhost:{port}"):
        assert served.create({}, {**login(), "Origin": origin}) == 403
    for host in (
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1.evil.example:{port}",
        f"evil@127.0.0.1:{port}",
        "",
    ):
        assert served.create({}, {**login(), "Host": host}) in (400, 421)
    assert served.runs() == []
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    assert ask(f"{served.api}/flow_runs/", None, preflight, "OPTIONS")[0] == 403
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert ask(f"{served.api}/admin/version", None, {**login(), "Host": host, "Origin": f"http://{host}"})[0] == 200


@pytest.mark.timeout(300)
def test_a_run_that_brings_a_command_is_refused_and_one_without_is_run(served: Served, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    command = [sys.executable, "-c", f"open({str(mark)!r}, 'w')"]
    assert served.create({"parameters": {"command": command}}, login()) == 409  # 201 before, and the command ran
    forced = {"parameters": {"command": command}, "enforce_parameter_schema": False, "name": "forced"}
    assert served.create(forced, login()) == 201  # who has the password may say so
    # nor does what else the API lets one write: old code loaded the flow from there
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\ndef due_run(): pass\n")
    where = {"path": str(tmp_path), "entrypoint": "evil.py:due_run", "job_variables": {"env": {"X": "1"}}}
    assert ask(f"{served.api}/deployments/{served.deployment()}", where, login(), "PATCH")[0] == 204
    before = len(served.note.read_text().splitlines()) if served.note.exists() else 0
    assert served.create({"name": "plain"}, login()) == 201

    def states() -> dict[str, str]:
        return {run["name"]: run["state_type"] for run in served.runs()}

    wait_for(lambda: set(states().values()) <= {"FAILED", "COMPLETED"}, served.process, served.log)
    assert states() == {"forced": "FAILED", "plain": "COMPLETED"}
    forced_run = next(run for run in served.runs() if run["name"] == "forced")
    assert "takes no parameters, and this one has 'command'" in forced_run["state"]["message"]
    assert len(served.note.read_text().splitlines()) > before
    assert not mark.exists()


@pytest.mark.timeout(300)
def test_a_run_that_is_cancelled_in_the_ui_ends(served: Served) -> None:
    slow = served.note.with_name("slow")
    slow.touch()
    assert served.create({"name": "long"}, login()) == 201

    def state() -> str:
        return str(next(run["state_type"] for run in served.runs() if run["name"] == "long"))

    wait_for(lambda: state() == "RUNNING", served.process, served.log)
    run = next(run["id"] for run in served.runs() if run["name"] == "long")
    asked = {"state": {"type": "CANCELLING"}}
    assert ask(f"{served.api}/flow_runs/{run}/set_state", asked, login())[0] in (200, 201)
    wait_for(lambda: state() == "CANCELLED", served.process, served.log, seconds=60)
    slow.unlink()


@contextmanager
def _foreign_page(script: str) -> Iterator[str]:
    """A page of another origin: the same machine, another port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<script>(async () => {{ {script} }})()</script>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


_SEND = """
const tries = [];
for (const type of ['text/plain', 'application/json'])
  for (const mode of ['no-cors', 'cors'])
    for (const [path, body] of POSTS)
      tries.push(await fetch(API + path, {method: 'POST', mode, headers: {'Content-Type': type}, body: JSON.stringify(body)})
        .then(a => `${type} ${mode} ${a.type} ${a.status}`, e => `${type} ${mode} refused`));
document.title = tries.join('; ') + '; all sent';
"""


@pytest.mark.timeout(300)
def test_a_page_of_another_origin_starts_nothing(served: Served, tmp_path: Path) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert program, "chromium is missing: apt-get install chromium chromium-driver"
    assert driver, "chromedriver is missing: apt-get install chromium chromium-driver"
    options = Options()
    options.binary_location = program
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
        "--host-resolver-rules=MAP rebound.example 127.0.0.1",
    ):  # fmt: skip
        options.add_argument(flag)
    before = {run["id"] for run in served.runs()}
    flow = ask(f"{served.api}/flows/filter", {}, login())[1][0]["id"]
    mark = tmp_path / "mark"
    command = [sys.executable, "-c", f"open({str(mark)!r}, 'w')"]
    body = {"parameters": {"command": command}, "state": {"type": "SCHEDULED"}}
    posts = [[f"/deployments/{served.deployment()}/create_flow_run", body], ["/flow_runs/", {"flow_id": flow, **body}]]
    script = f"const API = '{served.api}', POSTS = {json.dumps(posts)};{_SEND}"
    browser = webdriver.Chrome(service=Service(driver), options=options)
    try:
        with _foreign_page(script) as page:
            browser.get(page)
            wait_for(lambda: browser.title.endswith("all sent"), served.process, served.log)
        print(browser.title)
        port = served.api.removesuffix("/api").rpartition(":")[2]
        browser.get(f"http://rebound.example:{port}/ui-settings")  # one site with its own page, to the browser
        assert "does not answer to that host name" in browser.page_source
    finally:
        browser.quit()
    # the old server had 2 runs more (application/json, in mode cors: 201), and the command of one had run
    assert {run["id"] for run in served.runs()} == before
    assert not mark.exists()


@pytest.mark.timeout(300)
def test_the_password_is_in_no_log_and_on_no_command_line(served: Served) -> None:
    secret = api_login().partition(":")[2]
    everyone = [psutil.Process(served.process.pid), *psutil.Process(served.process.pid).children(recursive=True)]
    lines = [" ".join(process.cmdline()) for process in everyone]
    assert any("pipelines.engines.serve_api" in line for line in lines)
    assert not [line for line in lines if secret in line]
    home = Path(os.environ["WFM_HOME"]) / "prefect"
    for file in (served.log, home / "server.log", home / "server.json"):
        assert secret not in file.read_text()
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "password").stat().st_mode & 0o777 == 0o600
    assert (home / "server.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.timeout(300)
def test_a_server_is_adopted_only_with_the_right_password(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert running_server() == served.api
    with full_server() as address:
        assert address == served.api
    monkeypatch.setattr("pipelines.engines.prefect_server.api_login", lambda: "wfm:of-another-home")
    assert running_server() is None


@pytest.mark.timeout(300)
def test_a_cron_fires_and_nothing_stays_behind(served: Served) -> None:
    def fired() -> bool:
        found = ask(
            f"{served.api}/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}, login()
        )[1]
        return any(run["auto_scheduled"] for run in found)

    wait_for(fired, served.process, served.log)  # no moment is asserted: the machine may be busy
    assert served.note.read_text().strip()
    everyone = psutil.Process(served.process.pid).children(recursive=True)
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(timeout=60)
    _, alive = psutil.wait_procs(everyone, timeout=15)
    assert not alive
    assert not (Path(os.environ["WFM_HOME"]) / "prefect" / "server.json").exists()
    assert not served.planted.exists()  # the old command imported prefect.py from the current folder, and died of it
    # it was called, by each of the three files alone: Prefect reads them from the current folder
    assert not served.planted.with_name("called").exists()


@pytest.mark.timeout(120)
def test_the_server_of_a_run_keeps_others_out_too() -> None:
    api = server_for_run()
    # the old one answered 200 to all of these
    assert ask(f"{api}/flow_runs/filter", {})[0] == 401
    assert ask(f"{api}/flow_runs/filter", {}, {**login(), "Origin": "http://evil.example"})[0] == 403
    assert ask(f"{api}/flow_runs/filter", {}, {**login(), "Host": "evil.example"})[0] == 421
    assert ask(f"{api}/flow_runs/filter", {}, login())[0] == 200


@pytest.mark.parametrize("status", [200, 401])
def test_a_strangers_server_is_not_adopted(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lets everybody in, or nobody; the old check asked for /health only, and took both."""
    heard: list[str] = []

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/api"
        assert not guarded(address)
        heard.clear()
        monkeypatch.setattr(
            os, "geteuid", lambda: 4_000_000
        )  # as if it were another user's: it never sees the password
        assert not guarded(address)
        assert heard == []
        server.shutdown()


def test_a_port_that_is_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFM_HOME", str(tmp_path))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}.*in use"), full_server(port=port):
            pass
    with pytest.raises(InputError, match="cannot listen on nowhere"), full_server("nowhere.invalid"):
        pass


@pytest.mark.parametrize("cron", ["", "x", "* * * *", "61 * * * *", "* * * * * *"])
def test_a_wrong_cron_line_is_refused(cron: str) -> None:
    with pytest.raises(InputError, match="five fields"):
        check_cron(cron)


def test_a_due_run_is_the_command_a_user_would_type(tmp_path: Path) -> None:
    request = Request("curate", profile="smoke", videos="/v", dataset="mine", overrides=("split_clips.workers=1",))
    command = command_of(request, Store.open(tmp_path))
    assert command[1:5] == [
        "-P",
        "-m",
        "pipelines.commands.cli",
        "run",
    ]  # "-m" alone took modules from the current folder
    assert command[5:] == [
        "curate", "--profile", "smoke", "--store", f"file://{tmp_path}", "--quiet",
        "--videos", "/v", "--dataset", "mine", "--set", "split_clips.workers=1",
    ]  # fmt: skip
