"""``wfm metrics``: what the tries in a store add up to, for Prometheus."""

import os
from typing import Annotated

import typer

from pipelines.commands.console import STORE_DEFAULT, StoreOption, open_store, say

app = typer.Typer(help="Metrics of all runs in a store, for Prometheus.", no_args_is_help=True)


@app.callback()
def metrics() -> None:
    """Metrics of all runs in a store, for Prometheus."""


@app.command()
def serve(
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; beyond this machine WFM_METRICS_TOKEN holds the token that is asked for."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9464,
    every: Annotated[float, typer.Option(min=1.0, help="Between looks at the store [s].")] = 30.0,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Serve what the tries of all runs add up to: by stage and outcome, seconds lost, devices, waiting, the last success."""
    from pipelines.runs.exporter import TOKEN, follow, served
    from pipelines.runs.ledger import Ledger
    from pipelines.verbs import failed_there
    from wfm import stopping

    stopping.listen()
    ledger = Ledger(open_store(store, new=True))
    with served(ledger, host, port, os.environ.get(TOKEN, ""), every) as opened:
        say(f"http://{host}:{opened}/metrics")
        follow(ledger, every, failed_there)
