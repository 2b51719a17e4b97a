"""``wfm artifacts gc``: delete what nothing needs, by hand or by the clock; ``collected``: what went, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.artifact_answers import Collected, CollectionRow, Collections, GoneRow
from pipelines.commands.console import STORE_DEFAULT, StoreOption, many, moment, open_store, say, size
from pipelines.commands.json_output import JsonOption, say_json

if TYPE_CHECKING:
    from wfm.artifacts.gc_report import GcReport
    from wfm.artifacts.retention import Policy


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``wfm artifacts``."""
    app.command()(gc)
    app.command()(collected)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    policy: Annotated[
        str,
        typer.Option("--policy", metavar="FILE", help="What stays, in a file of JSON; options here come before it."),
    ] = "",
    wait: Annotated[
        float | None, typer.Option(help="Seconds between marking and deleting, for runs that start meanwhile (60).")
    ] = None,
    keep_runs: Annotated[
        int | None, typer.Option(help="What this many of the newest runs made or read stays (20).")
    ] = None,
    keep_promotions: Annotated[int | None, typer.Option(help="How many of each name's history stay (3).")] = None,
    min_age_hours: Annotated[float | None, typer.Option(help="What is younger, in hours, stays (24).")] = None,
    cron: Annotated[
        str, typer.Option("--cron", metavar="LINE", help="Do it at these times, for as long as this runs: '0 4 * * *'.")
    ] = "",
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Delete what no name, run or lease needs. What went, and why, stays in the store: `wfm artifacts collected`."""
    from components.promotion import by_hand

    opened = open_store(store)
    asked = _Asked(policy, wait, keep_runs, keep_promotions, min_age_hours)
    keep = asked.policy()  # a wrong file must be said now, not at four in the morning
    if cron:
        from pipelines.engines.schedule import serve_command

        serve_command(asked.command(opened.url, dry_run), "retention", cron)
        return
    report = opened.gc(dry_run=dry_run, by=by_hand(), **keep.choices())
    if json:
        say_json(_answer(report))
        return
    for dead in report.dead:
        say(f"{dead.area}/{dead.key[:12]} {size(dead.bytes)}: {dead.reason}")
    for problem in report.unread:
        say(f"cannot be read, left alone: {problem}")
    for note in report.notes:
        say(note)
    verb = "would go" if dry_run else "gone"
    rest = (
        f"{many(len(report.attempts), 'unfinished attempt')}, {many(len(report.scratch), 'scratch folder')}, "
        f"{many(len(report.nameless), 'nameless file')}, checkpoints of {many(len(report.checkpoints), 'key')}"
    )
    stay = many(len(report.live), "artifact stays", "artifacts stay")
    say(f"{verb}: {many(len(report.dead), 'commit')} ({size(report.bytes)}), {rest}; {stay}")


@dataclass(frozen=True)
class _Asked:
    file: str
    wait: float | None
    keep_runs: int | None
    keep_promotions: int | None
    min_age_hours: float | None

    def policy(self) -> "Policy":
        """The file's, as the options change it."""
        from wfm.artifacts.retention import Policy, read_policy

        said: dict[str, Any] = read_policy(self.file).resolved() if self.file else {}
        given = {
            "wait_seconds": self.wait,
            "keep_runs": self.keep_runs,
            "keep_promotions": self.keep_promotions,
            "keep_days": None if self.min_age_hours is None else self.min_age_hours / 24.0,
        }
        return Policy.parse({**said, **{name: value for name, value in given.items() if value is not None}})

    def command(self, store: str, dry_run: bool) -> list[str]:
        """The command line of one due collection."""
        from wfm.process import python

        words = python("-m", "pipelines.commands.cli", "artifacts", "gc", "--store", store)
        options = (
            ("--policy", str(Path(self.file).absolute()) if self.file else None),
            ("--wait", self.wait),
            ("--keep-runs", self.keep_runs),
            ("--keep-promotions", self.keep_promotions),
            ("--min-age-hours", self.min_age_hours),
        )
        for option, value in options:
            words += [] if value is None else [option, str(value)]
        return [*words, *(["--dry-run"] if dry_run else [])]


def collected(
    limit: Annotated[int, typer.Option(min=1, help="Show so many, the newest.")] = 10,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Show what collections have deleted, and why, newest first."""
    from itertools import islice

    from wfm.artifacts.retention import collections

    rows = [CollectionRow.of(one) for one in islice(collections(open_store(store).objects), limit)]
    if json:
        say_json(Collections(collections=rows))
        return
    for row in rows:
        say(
            f"{moment(row.at)} UTC by {row.by or 'somebody'}: {many(len(row.gone), 'commit')} ({size(row.bytes)}), "
            f"{many(row.attempts, 'unfinished attempt')}, {many(row.scratch, 'scratch folder')}, "
            f"checkpoints of {many(row.checkpoints, 'key')}"
        )
        for gone in row.gone:
            say(f"    {gone.area}/{gone.key[:12]} {size(gone.bytes)}: {gone.reason}")
    if not rows:
        say("no collection has deleted anything yet")


def _answer(report: "GcReport") -> Collected:
    return Collected(
        dry_run=report.dry_run,
        gone=[GoneRow(area=one.area, key=one.key, bytes=one.bytes, reason=one.reason) for one in report.dead],
        bytes=report.bytes,
        attempts=len(report.attempts),
        scratch=len(report.scratch),
        nameless=len(report.nameless),
        checkpoints=len(report.checkpoints),
        live=len(report.live),
        notes=report.notes,
        unread=report.unread,
    )
