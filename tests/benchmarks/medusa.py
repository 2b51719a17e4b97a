"""Medusa decoding against cached greedy decoding of the same model, on held-out clips of the demo's corpus.

    python -m tests.benchmarks.medusa --store file:///path/to/a/store/with/a/demo/run

Trains, on the demo's clips, a tokenizer with Cosmos's levels (the demo's own has ten digits a token, all of which a draft
would have to meet), on its tokens a small transformer in raster order (one token at a time: what the heads are for; the
demo's own model predicts a frame at a time and has no use for them), then heads on it with the last layers unfrozen, and
decodes held-out clips both ways. Trained models stay in `--folder`, and are taken from there by the next run.

One JSON line a row: `tokens_a_pass`, `ratio` (time of greedy over time of Medusa, ABBA pairs, one sequence at a time),
`identical` in fp32 and in fp64, and the same with the rows of the heads' matrix shuffled, which must take the gain away.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.paired import THREADS, paired, print_line
from wfm.actions import ActionSpec
from wfm.artifacts import Artifact, Store
from wfm.conditions.action import Action
from wfm.data.encoded_samples import require_samples
from wfm.data.loader import Loader
from wfm.data.order import one_shape
from wfm.data.passes import batches as in_batches
from wfm.data.shards import iter_samples
from wfm.data.signals import SignalTable
from wfm.data.windows import clip_signals
from wfm.families.autoregressive.decoding import continue_tokens, greedy
from wfm.families.autoregressive.medusa import continue_with_drafts
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.families.tokenizer.fit import open_tokenizer
from wfm.models.autoregressive import AutoregressiveTransformer
from wfm.models.folder import load_model, save_model
from wfm.models.tokenizer import Tokenizer
from wfm.recipes import demo
from wfm.training.config import WorldTrainingConfig
from wfm.training.encode import encode_shards
from wfm.training.encode_config import EncodingConfig
from wfm.training.encoded import LATENTS, Encoded, mean_rate
from wfm.training.fit import fit
from wfm.training.fit_world_model import build, go_on
from wfm.training.joined import JoinedSamples, Signals
from wfm.training.loop import train
from wfm.training.moments import write_summary

LEVELS = (8, 8, 8, 5, 5, 5)
"""Of Cosmos's discrete tokenizers: 64,000 tokens."""
GIVEN = 2
"""Latent frames of the past."""
NETWORK = {
    "dim": 192, "layers": 6, "heads": 4, "kv_heads": 2, "head_dim": 48, "ffn_dim": 512, "rope_theta": 100.0,
    "order": "raster", "vocabulary": "digits", "action_hidden": 192,
}  # fmt: skip


def tokenizer_of(folder: Path, dataset: Artifact) -> Tokenizer:
    """The tokenizer of `folder`, trained first where there is none: the demo's, with Cosmos's levels."""
    if not (folder / "model" / "config.json").exists():
        recipe = demo.settings()["train_tokenizer_discrete"]
        model = {**recipe["model"], "levels": LEVELS, "latent_channels": len(LEVELS)}
        (folder / "scratch").mkdir(parents=True, exist_ok=True)
        config = TokenizerTrainingConfig.parse({**recipe, "model": model})
        task = open_tokenizer({"dataset": dataset}, config)
        print_line(**fit(task, config, out=folder, scratch=folder / "scratch"))
    found: Tokenizer = load_model(folder / "model")[0]
    return found


def encoded(folder: Path, dataset: Artifact, tokenizer: Tokenizer) -> Encoded:
    """The tokens of the dataset's windows, from `folder` where they have been made, with their actions."""
    shards: dict[str, list[Path]] = {}
    for entry in dataset.parts:
        part = dataset.part(entry.name)
        for split in ("train", "val"):
            names = sorted(e.path for e in part.files(f"shards/{split}/") if e.path.endswith(".tar"))
            shards.setdefault(split, []).extend(part.fetch(name) for name in names)
    if not (folder / "latent_statistics.json").exists():
        encode_shards(tokenizer, shards, EncodingConfig.parse({"stride_frames": 10}), folder)
        write_summary([folder], folder)
    splits, spec = [], ActionSpec.null()
    for split in ("train", "val"):
        clips = [clip_signals(sample) for path in shards[split] for sample in iter_samples(path)]
        spec = ActionSpec.parse(clips[0].tracks["actions"].meaning)
        meanings = {"actions": {"shape": [spec.width], "meaning": spec.resolved()}}
        tracks = [{name: track.values for name, track in clip.tracks.items()} for clip in clips]
        samples = require_samples(folder, split)
        table = SignalTable([dict(clip.row) for clip in clips], tracks, meanings)
        own = {"action": Action(spec=spec)}
        signals = Signals(table, meanings)
        splits.append(JoinedSamples(samples, samples.table, 24.0, signals=signals, conditions=own.values()))
    rate = mean_rate({LATENTS: require_samples(folder, "train").table.column("fps").to_numpy()}, {LATENTS: 1.0})
    return Encoded({LATENTS: splits[0]}, {LATENTS: splits[1]}, {}, spec, rate, own=own)


def trained(folder: Path, values: dict[str, Any], data: Encoded, tokenizer: Tokenizer) -> AutoregressiveTransformer:
    """The model of `folder`, trained first where there is none."""
    if not (folder / "config.json").exists():
        config = WorldTrainingConfig.parse({"family": "autoregressive", **values})
        torch.manual_seed(config.training.seed)
        model, objective, card = build(config, tokenizer.config, data)
        go_on(model, card, config)
        samples = data.train[LATENTS]
        loader = Loader(samples, one_shape(samples.ids, config.training.batch_size, config.training.seed))
        train(model, objective, loader, config.training, scratch=folder / "scratch", run={"config": config.what()})
        save_model(model, card, folder)
    found: AutoregressiveTransformer = load_model(folder)[0]
    return found


def held_out(data: Encoded, clips: int) -> list[tuple[Tensor, Tensor | None]]:
    """Tokens `[1, t, h, w]` and actions `[1, T, A]` of windows of the val split, spread over it."""
    held = data.val[LATENTS]
    rows = range(0, len(held.ids), max(1, len(held.ids) // clips))[:clips]
    batches = [batch for _, batch in in_batches(held, size=1, rows=rows)]
    return [(batch["tokens"], batch.get("actions")) for batch in batches]


def passes(model: AutoregressiveTransformer, clips: list[tuple[Tensor, Tensor | None]]) -> tuple[float, float]:
    """Tokens a pass over all clips, and the share of clips whose tokens are those of greedy decoding."""
    made, same, counted = 0, 0, 0
    weight = model.output.weight
    for tokens, actions in clips:
        given = tokens[:, :GIVEN]
        told = None if actions is None else actions.to(weight.dtype)
        found = continue_with_drafts(model, {"past": given, "actions": told}, frames=tokens.shape[1])
        wanted = continue_tokens(model, {"past": given, "actions": told}, frames=tokens.shape[1], choose=greedy)
        made += tokens[:, GIVEN:].numel()
        counted += found.passes
        same += int(torch.equal(found.tokens, wanted))
    return made / counted, same / len(clips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--dataset", default="dataset/curated")
    parser.add_argument("--folder", type=Path, default=Path("medusa-benchmark"), help="where the trained models lie")
    parser.add_argument("--steps", type=int, default=300, help="of the model")
    parser.add_argument("--head-steps", type=int, default=900)
    parser.add_argument("--heads", type=int, nargs="+", default=[4])
    parser.add_argument("--unfrozen-layers", type=int, default=4)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    store = Store.open(arguments.store)
    dataset = store.artifact(store.resolve(arguments.dataset))
    tokenizer = tokenizer_of(arguments.folder / "tokenizer", dataset)
    data = encoded(arguments.folder / "tokens", dataset, tokenizer)
    training = {"batch_size": 16, "optimizer": "muon", "checkpoint_every": 10**9, "checkpoint_seconds": 1e9}
    base = arguments.folder / "model"
    common = {"cross_entropy": {"ordinal_smoothing": 0.6}}
    trained(
        base,
        {**common, "autoregressive": NETWORK, "training": {**training, "steps": arguments.steps}},
        data,
        tokenizer,
    )
    clips = held_out(data, arguments.clips)
    for heads in arguments.heads:
        values = {
            "cross_entropy": {**common["cross_entropy"], "medusa_weight": 1.0}, "initial": str(base),
            "autoregressive": {**NETWORK, "medusa_heads": heads}, "unfrozen_layers": arguments.unfrozen_layers,
            "training": {**training, "steps": arguments.head_steps},
        }  # fmt: skip
        model = trained(arguments.folder / f"heads-{heads}", values, data, tokenizer)
        report(model, heads, clips, arguments.pairs)


def report(model: AutoregressiveTransformer, heads: int, clips: list[tuple[Tensor, Tensor | None]], pairs: int) -> None:
    a_pass, same = passes(model, clips)
    exact = passes(model.double(), clips)[1]
    model.float()

    def both(decode: Any) -> Any:
        def run() -> None:
            for tokens, actions in clips[:2]:
                decode(tokens[:, :GIVEN], actions, tokens.shape[1])

        return run

    result = paired(
        both(
            lambda past, actions, frames: continue_with_drafts(model, {"past": past, "actions": actions}, frames=frames)
        ),
        both(
            lambda past, actions, frames: continue_tokens(
                model, {"past": past, "actions": actions}, frames=frames, choose=greedy
            )
        ),
        pairs=pairs,
    )
    assert model.medusa is not None
    weight = model.medusa.merged.weight
    with torch.no_grad():
        weight.copy_(weight[torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))])
    shuffled = passes(model, clips)
    print_line(
        benchmark="medusa", heads=heads, clips=len(clips), tokens_a_pass=round(a_pass, 3), **result.as_dict(),
        identical_fp32=same, identical_fp64=exact, shuffled_tokens_a_pass=round(shuffled[0], 3), shuffled_identical=shuffled[1],
    )  # fmt: skip


if __name__ == "__main__":
    main()
