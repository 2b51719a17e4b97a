"""The process of a full Prefect server (API, UI, scheduler) behind the gate; started by `prefect_server.full_server`.

    python -P -m pipelines.serve_api HOST PORT [NAME ...]

Settings, the password among them, come by the environment, which other users cannot read; a command line they can.
"""

import sys

from pipelines.api_gate import Gate, own_names


def main() -> None:
    """Serve until SIGTERM; exit code 1 when the port is taken."""
    import uvicorn
    from prefect.server.api.server import create_app

    host, port, *names = sys.argv[1:]
    app = Gate(create_app(final=True), own_names(host, names))
    uvicorn.run(app, host=host, port=int(port), log_level="critical", access_log=False, server_header=False)


if __name__ == "__main__":
    main()
