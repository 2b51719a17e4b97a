"""Where Prefect lives: settings that keep it to itself, and a server for one run, or for the UI and schedules.

Nothing of the user's own Prefect is read or written: the home is ``~/.wfm/prefect`` (`wfm_home.py`), the database is sqlite
inside it. A run's server is a thread of the run (one import instead of two: 3 s instead of 9 s once the database exists), so
it cannot outlive it. When `wfm ui` or `wfm schedule` has a full server up, runs use that one.

Every server asks for the password, and stands behind the gate (`api_gate.py`). One that is up is used only when a process of
this user listens there, it turns away who has no password, and ours opens it.
"""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.engines.api_gate import is_wildcard
from pipelines.engines.prefect_package import import_prefect
from pipelines.wfm_home import api_login, home, locked, read_private, write_private
from wfm.errors import InputError, TryAgain
from wfm.process import python, safe_environment

_PATIENCE_SECONDS = 300
_SERVER_FILE = "server.json"
_OWN_SERVER = threading.Thread(name="prefect-server")
"""The thread that serves this process, once one has been started."""


def settings() -> dict[str, str]:
    """Environment that a Prefect process of ours runs with; the API's password is in it."""
    login = api_login()
    return {
        "PREFECT_SERVER_API_AUTH_STRING": login,
        "PREFECT_API_AUTH_STRING": login,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "",  # the default lets every page read the answers
        "PREFECT_UI_API_URL": "/api",  # the UI asks where it was loaded from, by whatever name
        "PREFECT_HOME": str(home()),
        "PREFECT_PROFILES_PATH": str(home() / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(_PATIENCE_SECONDS),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home() / 'prefect.db'}",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    }


def apply_settings(**more: str) -> None:
    """Put our settings into this process, whether Prefect has been imported or not."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ.update(settings() | more)
    if "prefect" in sys.modules:  # it has read the environment already
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


def server_for_run() -> str:
    """Address of the API that this process uses: a full server that is up already, or a thread of this process.

    The thread is started once and lives as long as the process: Prefect reads its address only once.
    """
    if _OWN_SERVER.is_alive():
        return os.environ["PREFECT_API_URL"]
    address = running_server()
    if address is not None:
        apply_settings(PREFECT_API_URL=address)
        return address
    port = free_port()
    address = f"http://127.0.0.1:{port}/api"
    apply_settings(PREFECT_API_URL=address, PREFECT__SERVER_EPHEMERAL="1", PREFECT__SERVER_FINAL="1")
    _serve_in_thread(port)
    return address


def _serve_in_thread(port: int) -> None:
    """Start the API; the lock lets one process at a time create or migrate the database."""
    import_prefect()
    import uvicorn

    from pipelines.engines.serve_api import gated_app

    global _OWN_SERVER
    with locked("start"):
        app = gated_app("127.0.0.1", ephemeral=True)
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="on", access_log=False)
        server = uvicorn.Server(config)
        failed: list[BaseException] = []

        def serve() -> None:
            try:
                server.run()
            except BaseException as error:  # uvicorn ends a failed start with SystemExit
                failed.append(error)

        thread = _OWN_SERVER = threading.Thread(target=serve, name="prefect-server", daemon=True)
        thread.start()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not server.started:
            if not thread.is_alive():
                raise TryAgain(f"the embedded Prefect server did not start: {failed[0] if failed else 'it ended'}")
            if time.monotonic() > deadline:
                raise TryAgain(f"the embedded Prefect server was not up after {_PATIENCE_SECONDS} s")
            time.sleep(0.02)


def free_port() -> int:
    """A TCP port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_free(host: str, port: int) -> None:
    """Raise `InputError` when a server cannot listen there."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another --host or --port"
        ) from error


def running_server() -> str | None:
    """API address of the full server that `wfm ui` or `wfm schedule` started, if it is ours and keeps others out."""
    try:
        address = str(json.loads(read_private(home() / _SERVER_FILE))["api"])
        return address if guarded(address) else None
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None


def guarded(address: str) -> bool:
    """Whether a Prefect API of this user answers at ``address``, with 401 to who has no password, and opens to ours.

    The password is shown only to a process of this user: a stranger may have taken the port of a server that is gone.
    """
    parts = urlsplit(address)
    if parts.scheme != "http" or not parts.port or not _we_listen(parts.port):
        return False
    token = base64.b64encode(api_login().encode()).decode()
    return _status(address, {}) == 401 and _status(address, {"Authorization": f"Basic {token}"}) == 200


def _status(address: str, headers: dict[str, str]) -> int:
    """HTTP status of a question that needs the password; 0 when nobody answers within five seconds."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would see the password
    try:
        request = urllib.request.Request(f"{address}/admin/version", headers=headers)
        with direct.open(request, timeout=5.0) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return 0


def _we_listen(port: int) -> bool:
    """Whether all that listens on a TCP port of this machine are processes of this user."""
    import psutil

    def owner(process: int | None) -> int:
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(process).uids().effective) if process else -1
        return -1

    try:
        found = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except psutil.AccessDenied:  # outside Linux only root may look
        return False
    owners = {owner(one.pid) for one in found if one.laddr.port == port}
    return owners == {os.geteuid()}


@contextmanager
def full_server(host: str = "127.0.0.1", port: int = 0, names: Sequence[str] = ()) -> Iterator[str]:
    """The whole Prefect server (UI and scheduler too) for the length of the block; adopts one that is up.

    It answers to ``host``, to loopback and to ``names``; yields the address of its API.
    """
    address = running_server()
    if address is not None:
        yield address
        return
    import_prefect()
    port = port or free_port()
    _check_free(host, port)
    local = "127.0.0.1" if is_wildcard(host) else host.strip("[]")
    address = f"http://[{local}]:{port}/api" if ":" in local else f"http://{local}:{port}/api"
    guard = str(Path(__file__).with_name("guard.py"))
    report_read, report_write = os.pipe()
    command = python("-m", "pipelines.engines.serve_api", host.strip("[]"), str(port), *names)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with locked("start"), open(home() / "server.log", "ab") as log:
        process = subprocess.Popen(
            [*python("-S", "-E", guard), str(report_write), "10", "1", "", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=safe_environment(environment) | settings() | {"PREFECT_API_URL": address},
            pass_fds=(report_write,),
            start_new_session=True,
        )
        os.close(report_write)
        _wait_until_up(process, address)
    server_file = home() / _SERVER_FILE
    write_private(server_file, json.dumps({"api": address, "pid": process.pid}))
    try:
        yield address
    finally:
        server_file.unlink(missing_ok=True)
        process.terminate()
        try:
            process.wait(timeout=20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(report_read)


def _wait_until_up(process: "subprocess.Popen[bytes]", address: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not guarded(address):
        if process.poll() is not None:
            raise TryAgain(f"the Prefect server ended with {process.returncode}; see {home() / 'server.log'}")
        if time.monotonic() > deadline:
            process.terminate()
            raise TryAgain(f"the Prefect server was not up after {_PATIENCE_SECONDS} s; see {home() / 'server.log'}")
        time.sleep(0.2)


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop``."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_signal() -> None:
    """Block until SIGINT or SIGTERM."""
    stop = threading.Event()
    with stopped_by_signals(stop):
        while not stop.wait(0.5):
            pass
