"""``wfm artifacts purge``: take a video, and everything made from it, out of the store for good."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.artifact_answers import HeldRow, PurgeAnswer
from pipelines.commands.console import STORE_DEFAULT, StoreOption, many, open_store, say, size
from pipelines.commands.json_output import JsonOption, say_json

if TYPE_CHECKING:
    from wfm.artifacts.purge import Held, Purge


def add_to(app: typer.Typer) -> None:
    """Add the command to ``wfm artifacts``."""
    app.command("purge")(purge)


def purge(
    video: Annotated[str, typer.Option("--video", metavar="ID", help="The video's id: the sha256 of its bytes.")],
    reason: Annotated[str, typer.Option(help="Why; ingest gives it whenever it refuses the video.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, what would go is only shown.")] = False,
    models: Annotated[bool, typer.Option("--models", help="Delete what has learned from it, too.")] = False,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Delete everything that holds a video or was made from it, and refuse it at every later ingest.

    Shards that hold a clip of it are deleted whole; the next run of the pipeline writes them again without it, and only
    them. Trained models are listed, and deleted with --models.
    """
    from wfm.artifacts.purge import carry_out, find_video, purge_of
    from wfm.errors import InputError

    opened = open_store(store)
    found = find_video(opened, video)
    before = purge_of(opened, found.video_id)
    if yes and not (reason or before):
        raise InputError("purge --yes needs --reason: it is what ingest answers when the video comes again")
    if not json:
        _tell(found, models)
        if before is not None:
            say(f"purged before, at {before.created_at}: {before.reason}")
    if yes:
        carry_out(opened, found, reason or (before.reason if before else ""), models=models)
    if json:
        say_json(_answer(found, models, done=yes, before=before.created_at if before else ""))
        return
    going = len(found.held) + (len(found.learned) if models else 0)
    total = f"{many(going, 'commit')} ({size(found.bytes)}), {many(found.clips, 'clip')}"
    if yes:
        say(
            f"gone: {total}; the video is refused from now on. Run the pipeline again: what held it is made anew without it"
        )
    else:
        say(f"would go: {total}; --yes --reason ... deletes them and has the video refused from then on")


def _tell(found: "Purge", models: bool) -> None:
    for source in found.sources:
        say(f"read from {source} (not ours: it stays)")
    for each in sorted(found.held, key=lambda one: (one.area, one.stage, one.why, one.key)):
        say(f"{each.area}/{each.key[:12]} {each.kind} by {each.stage}, {size(each.bytes)}: {each.why}")
    for each in found.learned:
        word = "goes" if models else "STAYS, it has learned from the video (--models deletes it)"
        say(f"{each.area}/{each.key[:12]} {each.kind} by {each.stage}: {each.why}; {word}")
    for copy in found.copies:
        say(f"{copy}: a download of it, or of what belongs to it")
    for name in found.names:
        say(f"the name {name} points at one of these")
    for note in found.notes:
        say(f"could not be judged: {note}")
    if not (found.held or (found.learned and models) or found.copies):
        say("the store holds nothing of this video, nor of anything made from it")


def _answer(found: "Purge", models: bool, *, done: bool, before: str) -> PurgeAnswer:
    def rows(of: "list[Held]") -> list[HeldRow]:
        return [
            HeldRow(area=one.area, key=one.key, kind=one.kind, stage=one.stage, bytes=one.bytes, why=one.why)
            for one in of
        ]

    return PurgeAnswer(
        video=found.video_id, done=done, sources=found.sources, held=rows(found.held), learned=rows(found.learned),
        models=models, copies=[str(path) for path in found.copies], names=found.names, notes=found.notes,
        bytes=found.bytes, clips=found.clips, before=before,
    )  # fmt: skip
