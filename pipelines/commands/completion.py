"""What the tab key completes: pipelines, profiles, stages, runs, names of artifacts. Quick, and silent where something is
wrong: a prompt is no place for an error. `wfm --install-completion` puts it into bash, zsh or fish.
"""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import typer

from wfm.errors import WfmError

if TYPE_CHECKING:
    from wfm.artifacts import Store

_MOST = 200
_Find = Callable[["Store"], Iterable[str]]
Complete = Callable[[typer.Context, str], list[str]]


def pipelines(incomplete: str) -> list[str]:
    """Pipelines, and run files of this folder."""
    from pipelines.plan import PIPELINES

    return _beginning(incomplete, (*PIPELINES, *_files(incomplete, ".toml")))


def profiles(incomplete: str) -> list[str]:
    """Recipes."""
    import pkgutil

    import wfm.recipes

    return _beginning(incomplete, (module.name for module in pkgutil.iter_modules(wfm.recipes.__path__)))


def fields(incomplete: str) -> list[str]:
    """Nodes of all pipelines, for ``--set``: ``train_diffusion.``."""

    def nodes() -> list[str]:
        from pipelines.dags.promotion import Promotion
        from pipelines.plan import PIPELINES, recipe

        graphs = [build(recipe("demo"), "", Promotion()) for build in PIPELINES.values()]
        return _beginning(incomplete, dict.fromkeys(f"{node.name}." for graph in graphs for node in graph.nodes))

    return _quietly(nodes)


def engines(incomplete: str) -> list[str]:
    """Engines of this machine, and of clusters."""
    return _beginning(incomplete, ("prefect", "local", "argo", "kubeflow"))


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Runs of the store, newest first."""
    return _of_store(ctx, incomplete, lambda store: ("last", *(run.id for run in store.runs.list(limit=_MOST))))


def stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """Stages of the run that the line names."""
    from pipelines.runs.state import read_state

    def nodes(store: "Store") -> Iterable[str]:
        word = str(ctx.params.get("run_id") or "last")
        run = store.runs.list(limit=1)[0] if word == "last" else store.runs.open(word)
        state = read_state(run)
        return state.nodes if state is not None else run.nodes()

    return _of_store(ctx, incomplete, nodes)


def names(kind: str = "") -> Complete:
    """Names of artifacts; of one kind, with and without the kind before them."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        def known(store: "Store") -> Iterable[str]:
            for of, name, alias in store.names.all(kind):
                word = name if alias == "latest" else f"{name}@{alias}"
                yield from (f"{of}/{word}", word) if kind else (f"{of}/{word}",)

        return _of_store(ctx, incomplete, known)

    return complete


def _of_store(ctx: typer.Context, incomplete: str, found: "_Find") -> list[str]:
    """Of the store that the line or the environment names, if it is on this machine: a bucket is too slow for a prompt."""
    from wfm.artifacts.environment import default_store

    url = str(ctx.params.get("store") or default_store())
    if "://" in url and not url.startswith("file://"):
        return []
    return _quietly(lambda: _beginning(incomplete, _known(url, found)))


def _known(url: str, found: "_Find") -> Iterable[str]:
    from wfm.artifacts import Store

    return found(Store.open(url)) if os.path.isdir(url.removeprefix("file://")) else ()


def _quietly(ask: Callable[[], list[str]]) -> list[str]:
    """Nothing where a store or a record is damaged or away: that must not write into a prompt. A bug of ours may."""
    import logging

    logging.disable()
    try:
        return ask()
    except (WfmError, OSError):
        return []


def _beginning(incomplete: str, words: Iterable[Any]) -> list[str]:
    return [str(word) for word in words if str(word).startswith(incomplete)][:_MOST]


def _files(incomplete: str, ending: str) -> list[str]:
    """Files of the folder that is being typed."""
    folder = os.path.dirname(incomplete)
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder or ".")) if name.endswith(ending)]
    except OSError:
        return []
