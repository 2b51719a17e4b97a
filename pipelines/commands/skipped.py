"""``wfm artifacts skipped``: which files and clips were left out on the way to an artifact, by which stage, and why."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.artifact_answers import Skipped
from pipelines.commands.console import STORE_DEFAULT, StoreOption, open_store, say, warn
from pipelines.commands.json_output import say_json
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

_TABLES = ("videos", "skips")
"""Where stages write down what they left out: files, clips or spans of a file. Of a selection tells `curation.select.drops`."""


def add_to(app: typer.Typer) -> None:
    """Add the command to ``wfm artifacts``."""
    app.command("skipped")(skipped)


def skipped(
    reference: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="kind/name[@alias], a key, or its first 8+ digits.")
    ],
    reason: Annotated[str, typer.Option(metavar="CODE", help="Only this reason, such as truncated.")] = "",
    as_one: Annotated[bool, typer.Option("--json", help="The answer as one JSON document, for scripts.")] = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """List every file and clip that was left out on the way to an artifact: one JSON object a line."""
    opened = open_store(store)
    codes: set[str] = set()
    shown: list[dict[str, Any]] = []
    for row in left_out(opened, opened.resolve(reference)):
        code = row["reason"].split(": ")[0]
        codes.add(code)
        if reason in ("", code):
            shown.append(row)
            if not as_one:
                say(json.dumps(row, ensure_ascii=False))
    if as_one:
        say_json(Skipped(skipped=shown))
    elif not shown and not reason:
        warn(f"nothing was left out on the way to {reference}")
    if reason and not shown:
        raise InputError(f"nothing was left out as {reason!r}; reasons here: {', '.join(sorted(codes)) or 'none'}")


def left_out(store: "Store", key: str) -> Iterator[dict[str, Any]]:
    """What each stage before an artifact left out, in the order of the work: stage, reason, source, clip, seconds, and of
    clips that were not chosen the score that decided and its limit."""
    for ancestor in reversed(list(store.lineage(key))):
        if not ancestor.problem and ancestor.stage != "write_shards":  # it repeats what the stages before it say
            yield from _of_stage(store, store.artifact(ancestor.key), ancestor.stage)


def _of_stage(store: "Store", artifact: "Artifact", stage: str) -> Iterator[dict[str, Any]]:
    from wfm.curation.select.drops import drops

    if artifact.kind == "selection":
        yield from ({"stage": stage, **row} for row in drops(store, artifact))
        return
    for name in _TABLES:
        for _, table in artifact.iterate_table(name):
            for row in table.to_pylist():
                if not row.get("reason"):
                    continue
                where = {of: row[of] for of in ("source", "clip_id") if row.get(of)}
                if row.get("end_seconds"):
                    where |= {"start_seconds": row["start_seconds"], "end_seconds": row["end_seconds"]}
                yield {"stage": stage, "reason": row["reason"], **where}
