"""``wfm curate duplicates``: what deduplication would drop at several thresholds; nothing is written."""

from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import pydantic
import typer

from pipelines.commands.console import STORE_DEFAULT, StoreOption, open_store, say, show_table, table
from pipelines.commands.json_output import JsonOption, say_json
from wfm.errors import ConfigError

if TYPE_CHECKING:
    from wfm.curation.dedup.trial import Trial

_STAGE = "dedup_clips."


class TrialLine(pydantic.BaseModel):
    """What one threshold would do."""

    threshold: float
    pairs: int
    groups: int
    largest: int
    would_go: int
    by_tier: dict[str, int]
    "bytes, perceptual (by look), embedding."
    seconds: float


class Duplicates(pydantic.BaseModel):
    """``wfm curate duplicates --json``."""

    clips: int
    seconds: float
    trials: list[TrialLine]


def duplicates(
    of: Annotated[
        str,
        typer.Argument(
            metavar="DATASET_OR_KEY", help="dataset/NAME or dataset/NAME@ALIAS, or a key of duplicates or embeddings."
        ),
    ],
    threshold: Annotated[
        list[float] | None, typer.Option("--threshold", metavar="COSINE", help="To try; may be repeated.")
    ] = None,
    look: Annotated[bool, typer.Option("--look", help="Compare signatures too (crops, trims, letterboxes).")] = False,
    show: Annotated[int, typer.Option("--show", help="Clips to list of those that would go; 0: none.")] = 10,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="dedup_clips.A=1", help="Change how pairs are sought.")
    ] = None,
    json_: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Show how many clips deduplication would drop at each threshold, and which; nothing is written or dropped."""
    from wfm.curation.dedup.dedup import DedupConfig
    from wfm.curation.dedup.trial import read, trials

    wrong = [text for text in set_ or () if not text.startswith(_STAGE)]
    if wrong:
        raise ConfigError(f"--set {wrong[0]!r}: only {_STAGE}... can be set here, such as {_STAGE}reach=1")
    config = DedupConfig(look=look).override(text.removeprefix(_STAGE) for text in set_ or ())
    opened = open_store(store)
    tables = read(opened, opened.resolve(of), look=config.look)
    found = trials(tables, config, threshold or (0.9, config.threshold, 0.97, 0.99))
    seconds = sum(clip.end_seconds - clip.start_seconds for clip in tables.clips)
    if json_:
        say_json(Duplicates(clips=len(tables.clips), seconds=seconds, trials=[_line(each) for each in found]))
        return
    columns = ("cosine", "pairs", "groups", "largest", "would go", "bytes", "look", "embedding", "seconds", "share")
    counted = table(*columns, title=f"{len(tables.clips)} clips, {seconds:.0f} s: what would go, and by which tier")
    for trial in found:
        by, lost = trial.by_tier(), sum(line.seconds for line in trial.gone)
        tiers = [str(by.get(tier, 0)) for tier in ("bytes", "perceptual", "embedding")]
        numbers = [str(n) for n in (trial.pairs, trial.groups, trial.largest, len(trial.gone))]
        counted.row(f"{trial.threshold:g}", *numbers, *tiers, f"{lost:.0f}", f"{lost / max(seconds, 1e-9):.1%}")
    show_table(counted)
    shown = min(found, key=lambda trial: abs(trial.threshold - config.threshold))
    if show and shown.gone:
        name = {c.clip_id: f"{c.clip_id[:12]}  {PurePath(c.source).name} {c.start_seconds:.1f} s" for c in tables.clips}
        title = f"at {shown.threshold:g}, the least alike first"
        listed = table("tier", "cosine", "would go", "because of", title=title)
        for line in sorted(shown.gone, key=lambda line: (line.cosine, line.clip_id))[:show]:
            listed.row(line.tier, f"{line.cosine:.4f}", name[line.clip_id], name[line.duplicate_of])
        show_table(listed)
    say("nothing was written; the threshold in force is dedup_clips.threshold")


def _line(trial: "Trial") -> TrialLine:
    return TrialLine(
        threshold=trial.threshold, pairs=trial.pairs, groups=trial.groups, largest=trial.largest, would_go=len(trial.gone),
        by_tier=trial.by_tier(), seconds=sum(line.seconds for line in trial.gone),
    )  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Put the command into ``wfm curate``."""
    app.command()(duplicates)
