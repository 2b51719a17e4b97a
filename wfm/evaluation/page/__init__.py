"""The page of a run: one HTML file that opens offline, on a phone and on a desktop, in light and dark.

    data       what the page shows, as plain typed values: nothing here knows of artifacts
    config     what is chosen: how many examples, which targets the result is held against; the template, style and script
    gather     artifacts in, `PageData` out; gather_examples, gather_curation, gather_stages, training_curves: sections
    words      signs, ends of intervals, what subsets and baselines are called
    losses     the baselines that are nearer to the truth than a model, and by how much
    verdict    the headline in a sentence, and each target met or missed
    limits     what a result does not show
    cast       what a reader calls each set of videos, and its colour
    charts     line charts as inline SVG
    intervals  the gains with their intervals, as inline SVG
    lineage    the graph of artifacts as inline SVG
    write      `write_page(data, path)`: page.html.j2 + style.css + script.js in one file

Names, captions and reasons come from outside and are hostile: everything is escaped by the template, and the page
forbids itself every script but its own (by hash) and every address but data in it.
"""

from typing import Any

__all__ = ["PageConfig", "PageData", "write_page"]

_HOME = {"PageConfig": "config", "PageData": "data", "write_page": "write"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
