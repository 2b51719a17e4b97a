"""Prefect's server as we serve it: behind the gate, and without the current folder on the path.

    python -P -m pipelines.engines.serve_api HOST PORT [NAME ...]

is the process of a full server (API, UI, scheduler), started by `prefect_server.full_server`. Settings, the password among
them, come by the environment, which other users cannot read; a command line they can.
"""

import sys
from collections.abc import Iterable

from pipelines.engines.api_gate import Gate, own_names
from pipelines.engines.prefect_package import import_prefect


def gated_app(host: str, names: Iterable[str] = (), *, ephemeral: bool = False) -> Gate:
    """The app to serve at ``host``; ``ephemeral``: without UI and scheduler, for one run."""
    import_prefect()
    from prefect.server.api.server import create_app
    from prefect.server.database import alembic_commands

    made = alembic_commands.alembic_config

    def without_current_folder() -> object:
        config = made()
        config.set_main_option("prepend_sys_path", "")  # its alembic.ini says "."
        return config

    alembic_commands.alembic_config = without_current_folder  # type: ignore[assignment]
    return Gate(create_app(ephemeral=ephemeral, final=not ephemeral), own_names(host, names))


def main() -> None:
    """Serve until SIGTERM; exit code 1 when the port is taken."""
    import uvicorn

    host, port, *names = sys.argv[1:]
    app = gated_app(host, names)
    uvicorn.run(app, host=host, port=int(port), log_level="critical", access_log=False, server_header=False)


if __name__ == "__main__":
    main()
