"""``wfm artifacts``: what is in the store, where it came from, whether it is whole; names, copies and cleaning up.

An artifact is named by ``kind/name[@alias]``, by its key, or by the first 8 or more digits of it.
"""

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands import artifact_answers as answer
from pipelines.commands import catalogue, completion, names, purge, retention, skipped
from pipelines.commands.console import (
    STORE_DEFAULT,
    StoreOption,
    answers,
    many,
    moment,
    open_store,
    say,
    show_table,
    size,
    table,
    warn,
)
from pipelines.commands.json_output import JsonOption, say_json
from pipelines.explain import flat
from wfm.errors import DataError, InputError, WfmError
from wfm.log import printable

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

app = typer.Typer(help="Look at artifacts, check, name, copy and collect them.", no_args_is_help=True)
names.add_to(app)
retention.add_to(app)
purge.add_to(app)
skipped.add_to(app)
catalogue.add_to(app)

_REFERENCE = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT", help="kind/name[@alias], a key, or its first 8+ digits.", autocompletion=completion.names()
    ),
]
_MANY = 20
_ABSENT = "(absent)"


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="Only this kind, such as dataset or model.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Artifacts without a name too.")] = False,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """List names and what they point at; --all: every artifact, invalidated ones with the reason. Sizes include parts."""
    opened = open_store(store)
    called: dict[str, list[str]] = {}
    for promotion in opened.names.list(kind):
        called.setdefault(promotion.key, []).append(promotion.reference)
    keys = sorted({*called, *(opened.known_keys() if everything else ())})
    found = [
        row for row in (_row(opened, key, called.get(key, [])) for key in keys) if row.problem or kind in ("", row.kind)
    ]
    found.sort(key=lambda row: (row.at, row.names, row.key))
    if json:
        say_json(answer.ArtifactList(artifacts=found))
    elif found:
        _show(found)
    else:
        say("nothing yet" + ("" if everything else "; --all shows artifacts without a name too"))


def _row(store: "Store", key: str, called: list[str]) -> answer.ArtifactRow:
    """A key of the store; what is wrong with it stands in the row, and hides no other."""
    nothing = {"kind": "", "stage": "", "at": "", "files": 0, "bytes": 0, "parts": 0}
    if not store.has(key):
        stone = store.tombstone(key)
        problem = stone.described() if stone else "no longer there"
        return answer.ArtifactRow(names=called, key=key, problem=problem, **nothing)
    try:
        artifact = store.artifact(key)
    except InputError as error:
        warn(f"{key[:12]}: {error}")
        return answer.ArtifactRow(names=called, key=key, problem="cannot be read", **nothing)
    one = artifact.summary()
    return answer.ArtifactRow(
        names=called, kind=one["kind"], key=key, stage=one["stage"], at=one["created_at"], files=one["files"],
        bytes=_whole_bytes(artifact), parts=one["parts"],
    )  # fmt: skip


def _show(rows: "list[answer.ArtifactRow]") -> None:
    listed = table("name", "key", "made by", "at (UTC)", "files", "size", "parts", prose="what is wrong")
    for row in rows:
        known = [row.stage, moment(row.at)[:16], str(row.files), size(row.bytes), str(row.parts)]
        listed.row(", ".join(row.names) or row.kind, row.key[:12], *([""] * 5 if row.problem else known), row.problem)
    show_table(listed)


def _whole_bytes(artifact: "Artifact") -> int:
    try:
        return artifact.total_bytes()
    except WfmError:  # a part is gone or damaged; verify says which
        return artifact.manifest.files.bytes


@app.command()
def show(reference: _REFERENCE, json: JsonOption = False, store: StoreOption = STORE_DEFAULT) -> None:
    """Print an artifact's manifest: counts, what was skipped and why, config, inputs, cost, versions. Of an invalidated one
    too, with the reason.
    """
    opened = open_store(store)
    key = opened.resolve(reference)
    stone = opened.tombstone(key)
    try:
        artifact = opened.open_generation("artifacts", key, stone.generation) if stone else opened.artifact(key)
    except InputError:
        artifact = opened.artifact(key)  # collected, purged or never there: says which
    manifest = artifact.manifest
    shown = manifest.model_dump(mode="json", exclude={"files", "parts"})
    shown["files"] = {"count": manifest.files.count, "bytes": manifest.files.bytes}
    shown["parts"] = {"count": manifest.parts.count}
    with contextlib.suppress(WfmError):  # a part is gone or damaged; verify says which
        shown["parts"]["bytes"] = artifact.total_bytes() - manifest.files.bytes
    if stone is not None:
        shown["invalidated"] = {"reason": stone.reason, "at": stone.created_at, "by": stone.by}
    shown["names"] = [promotion.reference for promotion in opened.names.list(manifest.kind) if promotion.key == key]
    if json:
        say_json(answer.Shown.model_validate(shown))
    else:
        answers().print_json(data=shown)


@app.command()
def files(
    reference: _REFERENCE,
    prefix: Annotated[str, typer.Argument(help="Only paths that begin so.")] = "",
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """List an artifact's files, those of its parts included: sha256, size, path."""
    opened = open_store(store)
    found = opened.artifact(opened.resolve(reference)).files(prefix)
    if json:
        rows = [answer.FileRow(path=entry.path, sha256=entry.sha256, bytes=entry.size) for entry in found]
        say_json(answer.Files(files=rows))
        return
    for entry in found:
        say(f"{entry.sha256[:16]}  {entry.size:>12}  {printable(entry.path, one_line=True)}")


@app.command()
def diff(first: _REFERENCE, second: _REFERENCE, json: JsonOption = False, store: StoreOption = STORE_DEFAULT) -> None:
    """Compare two artifacts: code, options, inputs, counts, files."""
    opened = open_store(store)
    one, two = (opened.artifact(opened.resolve(reference)) for reference in (first, second))
    plain = ("stage", "kind", "code_id", "digest", "created_at")
    parts: dict[str, tuple[Any, Any]] = {
        name: (getattr(one.manifest, name), getattr(two.manifest, name)) for name in plain
    }
    for group in ("config", "inputs", "counts", "skipped"):
        old, new = flat(getattr(one.manifest, group)), flat(getattr(two.manifest, group))
        parts |= {f"{group}.{name}": (old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in sorted({*old, *new})}
    old, new = ({entry.path: entry.sha256 for entry in artifact.files()} for artifact in (one, two))
    found = answer.Difference(
        changes=[
            answer.Change(field=name, first=_or_none(before), second=_or_none(after))
            for name, (before, after) in parts.items()
            if before != after
        ],
        only_first=sorted(old.keys() - new.keys()),
        only_second=sorted(new.keys() - old.keys()),
        changed_files=sorted(path for path in old.keys() & new.keys() if old[path] != new[path]),
        same_files=sum(new.get(path) == sha256 for path, sha256 in old.items()),
    )
    if json:
        say_json(found)
        return
    for name, values in parts.items():
        if values[0] != values[1]:
            say(f"{name}: {' -> '.join(map(_worded, values))}")
    marked = (("-", found.only_first), ("+", found.only_second), ("~", found.changed_files))
    changes = [(mark, path) for mark, paths in marked for path in paths]
    for mark, path in changes[:_MANY]:
        say(f"{mark} {printable(path, one_line=True)}")
    more = f" ({len(changes) - _MANY} of them not shown)" if len(changes) > _MANY else ""
    say(f"files: {found.same_files} the same, {len(changes)} not{more}")


def _worded(value: Any) -> str:
    """A value for people: of a hash its beginning, by which commands find it."""
    if value is _ABSENT:
        return str(value)
    return value[:12] if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else repr(value)


def _or_none(value: Any) -> Any:
    return None if value is _ABSENT else value


@app.command()
def verify(
    reference: Annotated[str, typer.Argument(metavar="[ARTIFACT]", help="Empty with --all.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every committed artifact.")] = False,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Read every byte and compare it with what was committed. Fails when anything differs."""
    opened = open_store(store)
    if bool(reference) == everything:
        raise InputError("name one artifact, or give --all")
    rows = []
    for key in opened.committed_keys() if everything else [opened.resolve(reference)]:
        report = opened.verify(key)
        rows.append(
            answer.VerifyRow(
                key=key,
                kind=report.kind or "unknown",
                whole=report.ok,
                files=report.files,
                bytes=report.bytes,
                parts=report.parts,
                problems=report.problems,
                purged=report.purged,
            )
        )
        if not json:
            _tell_verified(rows[-1])
    if json:
        say_json(answer.Verified(artifacts=rows))
    bad = sum(not row.whole for row in rows)
    if bad:
        raise DataError(f"{bad} artifacts are damaged: `wfm artifacts invalidate KEY --reason ...`, then run again")


def _tell_verified(row: answer.VerifyRow) -> None:
    verdict = "whole" if row.whole else "DAMAGED"
    say(
        f"{row.key[:12]} {row.kind}: {verdict}, {many(row.files, 'file')}, {size(row.bytes)}, {many(row.parts, 'part')}"
    )
    for problem in (*row.problems, *row.purged):
        say(f"    {problem}")


@app.command()
def lineage(
    reference: _REFERENCE,
    sources: Annotated[bool, typer.Option("--sources", help="The source files too, one a line.")] = False,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Show what an artifact was made from, back to the sources."""
    opened = open_store(store)
    found = opened.lineage(opened.resolve(reference))
    if json:
        ancestors = [
            answer.AncestorRow(
                key=one.key,
                kind=one.kind,
                stage=one.stage,
                at=one.created_at,
                depth=one.depth,
                inputs=one.inputs,
                problem=one.problem,
            )
            for one in found
        ]
        say_json(answer.Ancestry(ancestors=ancestors, sources=list(found.sources()) if sources else []))
        return
    for ancestor in found:
        inputs = ", ".join(f"{name}={key[:12]}" for name, key in sorted(ancestor.inputs.items()))
        problem = f"  ({ancestor.problem})" if ancestor.problem else ""
        at = f" at {moment(ancestor.created_at)} UTC" if ancestor.created_at else ""
        indent = "  " * ancestor.depth
        say(f"{indent}{ancestor.key[:12]} {ancestor.kind} by {ancestor.stage}{at}{problem}")
        if inputs:
            say(f"{indent}    from {inputs}")
    if sources:
        for source in found.sources():
            say(printable(source, one_line=True))


@app.command()
def pull(
    reference: _REFERENCE,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to copy into.")],
    what: Annotated[str, typer.Option(help="all, tables alone, or one split as split:test.")] = "all",
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Copy an artifact, its tables alone, or one split into a folder; every byte is checked on the way. A model or data set
    gets its card beside it.
    """
    from wfm.catalogue import beside

    opened = open_store(store)
    key = opened.resolve(reference)
    artifact = opened.artifact(key)
    beside.require_ours(artifact, out)
    pulled = opened.pull(key, out, what)
    if beside.has_card(artifact):
        try:
            pulled += [path.absolute() for path in beside.write_cards(opened, artifact, out)]
        except InputError as error:  # the copy is whole; records of another make have no card
            warn(f"no card was written: {error}")
    copied = [path.relative_to(out.absolute()) for path in pulled]
    if json:
        say_json(answer.Pulled(key=key, folder=str(out), files=[path.as_posix() for path in copied]))
        return
    tops = sorted({path.parts[0] for path in copied})
    say(f"{many(len(copied), 'file')} of {key[:12]} in {out}: {', '.join(tops[:_MANY])}")


@app.command()
def invalidate(
    reference: _REFERENCE,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the artifact.")],
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Mark an artifact as bad: it counts as missing, and the next run makes it again."""
    opened = open_store(store)
    stone = opened.invalidate(opened.resolve(reference), reason)
    if json:
        say_json(answer.Invalidated(key=stone.key, generation=stone.generation, reason=reason))
        return
    say(f"{stone.key[:12]} (generation {stone.generation}) does not count any more: {reason}")
