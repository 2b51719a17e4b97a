"""``wfm artifacts promote | history | watch``: what names mean, what they meant, and when that changes."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.artifact_answers import History, PromotionRow
from pipelines.commands.console import STORE_DEFAULT, StoreOption, open_store, say, warn
from pipelines.commands.json_output import JsonOption, say_json
from wfm.errors import InputError, TryAgain

if TYPE_CHECKING:
    from wfm.artifacts import Store

_NAME = Annotated[str, typer.Argument(metavar="KIND/NAME[@ALIAS]", help="Such as model/diffusion or dataset/curated.")]
_SHORTEST, _LONGEST = 0.2, 300.0
"""Between two looks [s]."""


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``wfm artifacts``."""
    for command in (promote, history, watch):
        app.command()(command)


def promote(
    reference: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="kind/name[@alias], a key, or its first 8+ digits.")
    ],
    name: Annotated[str, typer.Argument(metavar="KIND/NAME[@ALIAS]", help="Such as model/diffusion@production.")],
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Let a name mean this artifact from now on, whatever a gate would say; its history stays."""
    from components.promotion import by_hand

    opened = open_store(store)
    kind, word, alias = split(name)
    key = opened.resolve(reference)
    number = opened.promote(kind, word, key, alias=alias or "latest", by=by_hand())
    made = opened.names.read(kind, word, alias or "latest", number)
    if json and made is not None:
        say_json(PromotionRow.of(made))
    else:
        say(f"{kind}/{word}@{alias or 'latest'} is {key[:12]} (number {number} of this name)")


def history(
    name: _NAME,
    limit: Annotated[int, typer.Option(min=1, help="Show so many of each alias, the newest.")] = 20,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Show what a name has meant, newest first: who promoted it, when, and what the gate saw. Without an alias, of all."""
    opened = open_store(store)
    kind, word, alias = split(name)
    aliases = [alias] if alias else [found for each, of, found in opened.names.all(kind) if of == word]
    rows = []
    for each in aliases:
        for number in opened.names.numbers(kind, word, each)[:limit]:
            try:
                made = opened.names.read(kind, word, each, number)
            except InputError as error:  # one damaged record must not hide the others
                warn(str(error))
                continue
            rows += [PromotionRow.of(made)] if made is not None else []
    if not rows:
        opened.resolve(name)  # an unknown name must fail here, with the choices
    rows.sort(key=lambda row: (row.at, row.number), reverse=True)
    if json:
        say_json(History(promotions=rows))
        return
    for row in rows:
        say(row.line())


def watch(
    name: _NAME,
    once: Annotated[bool, typer.Option("--once", help="End with the first time that it changes.")] = False,
    since: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Tell of every promotion after number N. Default: of those from now on."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="S", help="End after so many seconds: exit code 75 where nothing changed.")
    ] = 0.0,
    interval: Annotated[
        float, typer.Option(min=_SHORTEST, max=_LONGEST, metavar="S", help="Seconds between two looks.")
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Print a line whenever a name comes to mean something else; none is left out, and none is told twice. A name that nobody
    promoted yet may be waited for."""
    opened = open_store(store)
    kind, word, alias = split(name)
    alias = alias or "latest"
    seen = since if since is not None else max(opened.names.numbers(kind, word, alias), default=0)
    end = time.monotonic() + timeout if timeout else float("inf")
    moved = False
    while True:
        for row, number in _news(opened, kind, word, alias, seen):
            seen, moved = number, True
            say(row.model_dump_json() if json else row.line())
            if once:
                return
        left = end - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(interval, left))
    if not moved:
        raise TryAgain(f"{kind}/{word}@{alias} did not change within {timeout:g} s")


def _news(store: "Store", kind: str, name: str, alias: str, seen: int) -> "list[tuple[PromotionRow, int]]":
    """What came after number `seen`, in order; none while the store does not answer."""
    found = []
    try:
        for number in range(seen + 1, max(store.names.numbers(kind, name, alias), default=0) + 1):
            try:
                made = store.names.read(kind, name, alias, number)
            except InputError as error:
                warn(str(error))
                continue
            found += [(PromotionRow.of(made), number)] if made is not None else []
    except TryAgain as error:
        warn(f"looking again: {error}")
    return found


def split(name: str) -> tuple[str, str, str]:
    """(kind, name, alias or "") of ``KIND/NAME[@ALIAS]``. Raises InputError for another form."""
    kind, slash, rest = name.partition("/")
    word, at, alias = rest.partition("@")
    if not slash or not word or (at and not alias):
        raise InputError(f"{name!r} is not of the form KIND/NAME[@ALIAS], such as model/diffusion@production")
    return kind, word, alias
