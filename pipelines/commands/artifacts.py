"""``wfm artifacts``: what is in the store, where it came from, whether it is whole; names, copies and cleaning up.

An artifact is named by ``kind/name[@alias]``, by its key, or by the first 8 or more digits of it.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands import catalogue, purge, skipped
from pipelines.commands.console import (
    STORE_DEFAULT,
    StoreOption,
    answers,
    moment,
    open_store,
    say,
    show_table,
    size,
    table,
    warn,
)
from pipelines.explain import flat
from wfm.errors import DataError, InputError, WfmError
from wfm.log import printable

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

app = typer.Typer(help="Look at artifacts, check, name, copy and collect them.", no_args_is_help=True)
purge.add_to(app)
skipped.add_to(app)
catalogue.add_to(app)

_REFERENCE = Annotated[
    str, typer.Argument(metavar="ARTIFACT", help="kind/name[@alias], a key, or its first 8+ digits.")
]
_MANY = 20
_ABSENT = "(absent)"


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="Only this kind, such as dataset or model.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Artifacts without a name too.")] = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """List names and what they point at; --all: every artifact, invalidated ones with the reason. Sizes include parts."""
    opened = open_store(store)
    made = table("name", "key", "made by", "at (UTC)", "files", "size", "parts", prose="what is wrong")
    names: dict[str, list[str]] = {}
    for promotion in opened.names.list(kind):
        names.setdefault(promotion.key, []).append(promotion.reference)
    keys = sorted({*names, *(opened.known_keys() if everything else ())})
    rows = []
    for key in keys:
        if not opened.has(key):
            stone = opened.tombstone(key)
            gone = stone.described() if stone else "no longer there"
            rows.append(("", [", ".join(names.get(key, [])), key[:12], "", "", "", "", "", gone]))
            continue
        try:
            artifact = opened.artifact(key)
        except InputError as error:  # one damaged manifest must not hide the others
            rows.append(("", [", ".join(names.get(key, [])), key[:12], "", "", "", "", "", "cannot be read"]))
            warn(f"{key[:12]}: {error}")
            continue
        if kind and artifact.kind != kind:
            continue
        one = artifact.summary()
        called = ", ".join(names.get(key, [])) or str(one["kind"])
        row = [called, key[:12], str(one["stage"]), moment(str(one["created_at"]))[:16], str(one["files"])]
        rows.append((str(one["created_at"]), [*row, _whole_size(artifact), str(one["parts"])]))
    for _, row in sorted(rows):
        made.row(*row)
    if rows:
        show_table(made)
    else:
        say("nothing yet" + ("" if everything else "; --all shows artifacts without a name too"))


def _whole_size(artifact: "Artifact") -> str:
    try:
        return size(artifact.total_bytes())
    except WfmError:  # a part is gone or damaged; verify says which
        return f"{size(artifact.manifest.files.bytes)} and parts"


@app.command()
def show(reference: _REFERENCE, store: StoreOption = STORE_DEFAULT) -> None:
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
    answers().print_json(data=shown)


@app.command()
def files(
    reference: _REFERENCE,
    prefix: Annotated[str, typer.Argument(help="Only paths that begin so.")] = "",
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """List an artifact's files, those of its parts included: sha256, size, path."""
    opened = open_store(store)
    for entry in opened.artifact(opened.resolve(reference)).files(prefix):
        say(f"{entry.sha256[:16]}  {entry.size:>12}  {printable(entry.path, one_line=True)}")


@app.command()
def diff(first: _REFERENCE, second: _REFERENCE, store: StoreOption = STORE_DEFAULT) -> None:
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
    for name, (before, after) in parts.items():
        if before != after:
            say(f"{name}: {' -> '.join(value if value is _ABSENT else repr(value) for value in (before, after))}")
    old_files, new_files = ({entry.path: entry.sha256 for entry in artifact.files()} for artifact in (one, two))
    changes = [("-", path) for path in sorted(old_files.keys() - new_files.keys())]
    changes += [("+", path) for path in sorted(new_files.keys() - old_files.keys())]
    changes += [
        ("~", path) for path in sorted(old_files.keys() & new_files.keys()) if old_files[path] != new_files[path]
    ]
    for mark, path in changes[:_MANY]:
        say(f"{mark} {printable(path, one_line=True)}")
    same = len(old_files) - sum(mark != "+" for mark, _ in changes)
    more = f" ({len(changes) - _MANY} of them not shown)" if len(changes) > _MANY else ""
    say(f"{same} files are the same, {len(changes)} differ{more}")


@app.command()
def verify(
    reference: Annotated[str, typer.Argument(metavar="[ARTIFACT]", help="Empty with --all.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every committed artifact.")] = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Read every byte and compare it with what was committed. Fails when anything differs."""
    opened = open_store(store)
    if bool(reference) == everything:
        raise InputError("name one artifact, or give --all")
    bad = 0
    for key in opened.committed_keys() if everything else [opened.resolve(reference)]:
        report = opened.verify(key)
        verdict = "whole" if report.ok else "DAMAGED"
        read = f"{report.files} files, {size(report.bytes)}, {report.parts} parts"
        say(f"{key[:12]} {report.kind or 'unknown'}: {verdict}, {read}")
        for problem in (*report.problems, *report.purged):
            say(f"    {problem}")
        bad += not report.ok
    if bad:
        raise DataError(f"{bad} artifacts are damaged: `wfm artifacts invalidate KEY --reason ...`, then run again")


@app.command()
def lineage(
    reference: _REFERENCE,
    sources: Annotated[bool, typer.Option("--sources", help="The source files too, one a line.")] = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Show what an artifact was made from, back to the sources."""
    opened = open_store(store)
    found = opened.lineage(opened.resolve(reference))
    for ancestor in found:
        inputs = ", ".join(f"{name}={key[:12]}" for name, key in sorted(ancestor.inputs.items()))
        problem = f"  ({ancestor.problem})" if ancestor.problem else ""
        indent = "  " * ancestor.depth
        say(f"{indent}{ancestor.key[:12]} {ancestor.kind} by {ancestor.stage} at {ancestor.created_at}{problem}")
        if inputs:
            say(f"{indent}    from {inputs}")
    if sources:
        for source in found.sources():
            say(printable(source, one_line=True))


@app.command()
def promote(
    reference: _REFERENCE,
    name: Annotated[str, typer.Argument(metavar="KIND/NAME[@ALIAS]", help="Such as model/diffusion@production.")],
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Let a name mean this artifact from now on; its history stays."""
    opened = open_store(store)
    kind, slash, rest = name.partition("/")
    word, _, alias = rest.partition("@")
    if not slash or not word:
        raise InputError(f"{name!r} is not of the form KIND/NAME[@ALIAS], such as model/diffusion@production")
    key = opened.resolve(reference)
    number = opened.promote(kind, word, key, alias=alias or "latest")
    say(f"{kind}/{word}@{alias or 'latest'} is {key[:12]} (number {number} of this name)")


@app.command()
def pull(
    reference: _REFERENCE,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to copy into.")],
    what: Annotated[str, typer.Option(help="all, tables alone, or one split as split:test.")] = "all",
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
    copied = opened.pull(key, out, what)
    if beside.has_card(artifact):
        try:
            copied += [path.absolute() for path in beside.write_cards(opened, artifact, out)]
        except InputError as error:  # the copy is whole; records of another make have no card
            warn(f"no card was written: {error}")
    tops = sorted({path.relative_to(out.absolute()).parts[0] for path in copied})
    say(f"{len(copied)} files of {key[:12]} in {out}: {', '.join(tops[:_MANY])}")


@app.command()
def invalidate(
    reference: _REFERENCE,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the artifact.")],
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Mark an artifact as bad: it counts as missing, and the next run makes it again."""
    opened = open_store(store)
    stone = opened.invalidate(opened.resolve(reference), reason)
    say(f"{stone.key[:12]} (generation {stone.generation}) does not count any more: {reason}")


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds between marking and deleting, for runs that start meanwhile.")
    ] = 60.0,
    keep_runs: Annotated[int, typer.Option(help="What this many of the newest runs made or read stays.")] = 20,
    keep_promotions: Annotated[int, typer.Option(help="How many of each name's history stay.")] = 3,
    min_age_hours: Annotated[float, typer.Option(help="What is younger, in hours, stays.")] = 24.0,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Delete what no name, run or lease needs."""
    opened = open_store(store)
    report = opened.gc(
        dry_run=dry_run, wait_seconds=wait, keep_runs=keep_runs, keep_promotions=keep_promotions,
        min_age_seconds=min_age_hours * 3600.0,
    )  # fmt: skip
    for dead in report.dead:
        say(f"{dead.area}/{dead.key[:12]} {size(dead.bytes)}: {dead.reason}")
    for problem in report.unread:
        say(f"cannot be read, left alone: {problem}")
    for note in report.notes:
        say(note)
    verb = "would go" if dry_run else "are gone"
    rest = (
        f"{len(report.attempts)} unfinished attempts, {len(report.scratch)} scratch folders, {len(report.nameless)} nameless "
        f"files, checkpoints of {len(report.checkpoints)} keys"
    )
    say(f"{len(report.dead)} commits ({size(report.bytes)}), {rest} {verb}; {len(report.live)} artifacts stay")
