"""Encode every window of a data set once: latents or tokens, with the actions that act between the frames.

Reads `dataset` and `tokenizer`; works in the data set's parts. Layout of the output: `wfm.training.encode`.

    python -m components.encode_latents --spec URL --input dataset=KEY --input tokenizer=KEY --key-out PATH
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.context import PartContext
from components.entrypoint import Context, Result, main
from wfm.data.exclusions import Exclusions, read_exclusions
from wfm.errors import Cancelled
from wfm.training.config import EncodingConfig


class EncodeLatentsConfig(EncodingConfig):
    """Which windows are encoded; see `wfm.training.config`."""


def outside(config: EncodeLatentsConfig, inputs: Mapping[str, str], store: Any) -> dict[str, str] | None:
    """The text encoder comes from outside, so it enters the key by the hash of its files; None when none is used."""
    from wfm.models.text.identity import encoder_identity

    return {"text_encoder": encoder_identity(config.text)} if config.text.used else None


def run(ctx: Context[EncodeLatentsConfig]) -> Result:
    """Every part of the data set, then statistics of the whole."""
    from wfm.models.text.identity import encoder_note
    from wfm.training.encode import write_summary

    dataset, tokenizer = ctx.inputs["dataset"], ctx.inputs["tokenizer"]
    weights = sorted((entry.path, entry.sha256) for entry in tokenizer.files("model/"))
    seen = ctx.outside if ctx.outside is not None else outside(ctx.config, {}, ctx.store)
    parts: dict[str, Any] = {
        entry.name: {"dataset": entry.digest, "tokenizer": weights, **(seen or {})} for entry in dataset.parts
    }
    arguments: dict[str, Any] = {name: {"dataset": dataset.key, "tokenizer": tokenizer.key} for name in parts}
    excluded = read_exclusions(dataset)
    for name in parts:
        if left_out := sorted(excluded.of_part(name).entries):
            parts[name]["exclude"] = arguments[name]["exclude"] = left_out
    entries = ctx.map_parts(parts, encode_part, arguments)
    if ctx.stopping():
        raise Cancelled("encode_latents: asked to stop; the parts made so far are kept")
    folders = []
    for entry in entries:
        folder = ctx.scratch / "summary" / entry.name
        made = ctx.store.part(entry.key)
        for name in ("moments.json", "action_spec.json"):
            made.fetch_tree(name, folder)
        folders.append(folder)
    write_summary(folders, ctx.out)
    counts = {name: sum(entry.counts.get(name, 0) for entry in entries) for name in ("clips", "windows", "too_short")}
    return Result(
        counts={"inputs": counts["clips"], "outputs": counts["windows"]},
        skipped={"too_short": counts["too_short"]},
        parts=entries,
        extra={"text": encoder_note(ctx.config.text)} if ctx.config.text.used else {},
    )


def encode_part(part: "PartContext[EncodeLatentsConfig]") -> Result:
    """One part of the data set."""
    import torch

    from wfm.training.encode import encode_shards
    from wfm.training.saved import open_model

    config, store = part.config, part.open_store()
    if config.threads:
        torch.set_num_threads(config.threads)
    tokenizer, _ = open_model(store.artifact(part.arguments["tokenizer"]), config.tokenizer_family)
    source = store.artifact(part.arguments["dataset"]).part(part.name)
    excluded = Exclusions(frozenset(part.arguments.get("exclude", ())))
    shards: dict[str, list[Path]] = {}
    for split in config.splits:
        names = sorted(e.path for e in source.files(f"shards/{split}/") if e.path.endswith(".tar"))
        shards[split] = [source.fetch(name) for name in names if not excluded.leaves_out(name)]
    made: dict[str, Any] = encode_shards(tokenizer, shards, config, part.out, excluded.keys)
    return Result(counts={"inputs": 0, "outputs": made["windows"], **made})


CONFIG = EncodeLatentsConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
