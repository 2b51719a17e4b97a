"""The command ``wfm``. One file a group of commands: `runs` (start and watch), `artifacts`, the rest here.

Exit codes: 0 done, 78 wrong input, 75 try again, 143 stopped on request, 1 a bug of ours.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands import (
    artifacts,
    backfill,
    cluster,
    compile,
    completion,
    cost,
    curate,
    curate_report,
    duplicates,
    metrics,
    models,
    quota,
    runs,
    schedules,
    search,
    submit,
    weights,
)
from pipelines.commands.console import (
    STORE_DEFAULT,
    ForceOption,
    StoreOption,
    guarded,
    open_store,
    say,
    show_table,
    spell_out,
)
from pipelines.commands.group import Group
from pipelines.commands.json_output import JsonOption, say_json
from wfm.errors import InputError, MissingPackage

app = typer.Typer(
    name="wfm",
    cls=Group,
    help="From raw video to a trained, evaluated, published world foundation model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is plain text: what stands in brackets is no markup
    context_settings={"help_option_names": ["-h", "--help"]},
)
runs.add_to(app)
submit.add_to(app)
backfill.add_to(app)
cost.add_to(app)
search.add_to(app)
quota.add_to(app)
curate_report.add_to(curate.app)
duplicates.add_to(curate.app)
for name, group in (
    ("artifacts", artifacts), ("curate", curate), ("weights", weights), ("models", models), ("cluster", cluster),
    ("metrics", metrics),
):  # fmt: skip
    app.add_typer(group.app, name=name, cls=Group)
app.add_typer(schedules.app, name="schedule")
compile.add_to(app)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"wfm {version('wfm')}")
        raise typer.Exit


@app.callback()
def wfm(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which wfm this is, and end.")
    ] = False,
) -> None:
    """From raw video to a trained, evaluated, published world foundation model."""


@app.command()
def generate(
    model: Annotated[
        str,
        typer.Argument(
            help="Published model: NAME, model/NAME[@ALIAS], a key, or a bundle's folder.",
            autocompletion=completion.names("model"),
        ),
    ],
    past: Annotated[Path, typer.Option("--past", help="Video whose end is the past that is continued.")],
    action: Annotated[Path | None, typer.Option("--action", help="Actions over time: Parquet, CSV or JSON.")] = None,
    camera: Annotated[Path | None, typer.Option("--camera", help="Camera moves over time instead of actions.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The mp4 to write.")] = Path("future.mp4"),
    seed: Annotated[int, typer.Option(help="The same seed gives bitwise the same video.")] = 0,
    mode: Annotated[
        str,
        typer.Option(
            help="How it is drawn, such as sample or mean (another lists the model's); empty: the model's own."
        ),
    ] = "",
    frames: Annotated[int, typer.Option(help="Given and predicted frames together; 0: as in training.")] = 0,
    seconds: Annotated[
        float | None,
        typer.Option(help="How far into the future [s], in place of --frames; beyond a window: rolled out."),
    ] = None,
    text: Annotated[str, typer.Option(help="What is to be seen, for a model that was trained with captions.")] = "",
    text_encoder: Annotated[
        str, typer.Option(metavar="FOLDER", help="The text encoder's folder, where it is not an installed package.")
    ] = "",
    guidance: Annotated[
        float | None,
        typer.Option(help="Strength of text and actions; 1: none (Cosmos's 7 is 8). Default: the model's."),
    ] = None,
    negative_text: Annotated[str, typer.Option(help="What guidance moves away from.")] = "",
    decoder: Annotated[
        str, typer.Option(help="Decoder (NAME, key or folder) that shows a model's tokens in place of its tokenizer.")
    ] = "",
    force: ForceOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Predict the future of a clip with a published model."""
    try:
        from wfm.generation.command import generate_from_files
    except ImportError as error:
        raise MissingPackage(str(error.name), extra="train", purpose="wfm generate") from error
    written = generate_from_files(
        open_store(store),
        model,
        past,
        action,
        camera,
        out,
        seed=seed,
        mode=mode,
        num_frames=frames,
        seconds=seconds,
        text=text,
        text_encoder=text_encoder,
        guidance=guidance,
        negative_text=negative_text,
        decoder=decoder,
        force=force,
    )
    say(f"{written.video}\n{written.sidecar}")


@app.command()
def doctor(json_: JsonOption = False) -> None:
    """Show what is installed, what is missing for what, and how to get it."""
    from pipelines.commands.doctor import examine, shown

    examined = examine()
    if json_:
        say_json(examined)
    else:
        show_table(shown(examined))
    raise typer.Exit(0 if examined.fit else InputError.exit_code)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 4200,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Beyond this machine the password travels in clear: use ssh or TLS."),
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Another name that browsers reach it by, behind a proxy; may be repeated."),
    ] = None,
) -> None:
    """Start the engine's UI; runs that begin while it is up appear in it as they go. `wfm password` shows what opens it."""
    from pipelines.engines.prefect_server import full_server, wait_for_signal

    with full_server(host, port, name or ()) as address:
        say(f"{address.removesuffix('/api')}  (`wfm password` shows what opens it; Ctrl-C stops it)")
        wait_for_signal()


@app.command()
def password(
    new: Annotated[bool, typer.Option("--new", help="Make another one.")] = False,
    change: Annotated[
        bool, typer.Option("--change", help="Ask for another one, or read it from standard input.")
    ] = False,
) -> None:
    """Show the password of the engine's UI and API (`wfm ui`, `wfm schedule`), or change it."""
    import sys

    from pipelines.wfm_home import api_login, change_login

    if not new and not change:
        print(api_login())
        return
    if change and not new:
        given = typer.prompt("New password", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
        if not given:
            raise InputError("no password was given: --new makes one")
    print(change_login("" if new else given))
    typer.echo("a server that is up keeps the old one until it is started again", err=True)


@app.command()
def lock(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail when the lock is stale.")] = False,
) -> None:
    """Write down which code each stage's version stands for."""
    from pipelines.lock import renew, stale

    if check:
        names = stale()
        say(f"stale: {', '.join(names)}. Run `wfm lock` (see pipelines/lock.py)" if names else "the lock is up to date")
        raise typer.Exit(InputError.exit_code if names else 0)
    changed = renew()
    say(f"renewed: {', '.join(changed)}" if changed else "the lock was up to date")


def main() -> None:
    """Entry point of the console script."""
    from wfm.log import set_up
    from wfm.process import forget_current_folder

    forget_current_folder()
    spell_out()
    set_up("WARNING")
    guarded(lambda: app(standalone_mode=False))


if __name__ == "__main__":
    main()
