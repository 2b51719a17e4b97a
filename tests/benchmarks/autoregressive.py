"""Cached greedy decoding, and the pass over a prefix, against transformers' Qwen3: same size, CPU, fp32, in turn.

    python -m tests.benchmarks.autoregressive
    python -m tests.benchmarks.autoregressive --rows 512 --pairs 3

Qwen3 is the same block with one rotary axis (tests/parity holds ours against it, number by number); both have random
weights of the same shapes here, as time does not depend on them. Ours decodes with three rotary axes and an action in every
step. The rival is its own `generate`, greedy, with its key/value cache, at batch 1 and at its best batch of 1, 2, 4
(a sequence). One JSON line a row: `ratio` is rival / ours (above 1, ours is faster) over ABBA pairs.
"""

import argparse
from collections.abc import Callable

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.benchmarks.paired import THREADS, best_batch, paired, print_line
from wfm.families.autoregressive.build import transformer
from wfm.families.autoregressive.decoding import continue_tokens, greedy
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from wfm.models.fast_cpu import fast_cpu

GRID, GIVEN, FRAMES = (8, 8), 2, 4
"""Tokens of a latent frame, latent frames given, and all of them: 128 tokens given, 128 decoded."""
SIZES = {
    "192": {"dim": 192, "layers": 6, "heads": 4, "kv_heads": 2, "head_dim": 48, "ffn_dim": 512, "levels": (8, 5, 5, 5)},
    "512": {"dim": 512, "layers": 8, "heads": 8, "kv_heads": 2, "head_dim": 64, "ffn_dim": 1536, "levels": (8, 8, 8, 5, 5, 5)},
}  # fmt: skip
"""By width; the wide one has Cosmos's vocabulary of 64,000."""


def models(size: str) -> tuple[AutoregressiveTransformer, Qwen3ForCausalLM]:
    torch.manual_seed(0)
    config = AutoregressiveConfig.parse(SIZES[size])
    peer = Qwen3ForCausalLM._from_config(
        Qwen3Config(
            vocab_size=config.vocabulary_size, hidden_size=config.dim, intermediate_size=config.ffn_dim,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim, rms_norm_eps=config.norm_eps, tie_word_embeddings=False, max_position_embeddings=512,
            bos_token_id=None, eos_token_id=None, pad_token_id=0,
        ),
        attn_implementation="sdpa",
    )  # fmt: skip
    return fast_cpu(transformer(config).eval()), peer.eval()


def measure(size: str, pairs: int) -> None:
    ours, peer = models(size)
    places = GRID[0] * GRID[1]
    past = torch.randint(0, ours.config.vocabulary_size, (1, GIVEN, *GRID), generator=torch.Generator().manual_seed(1))
    new = (FRAMES - GIVEN) * places

    def decode() -> object:
        return continue_tokens(ours, {"past": past}, frames=FRAMES, choose=greedy)

    def rival(batch: int) -> Callable[[], object]:
        ids = past.view(1, -1).expand(batch, -1)
        mask = torch.ones_like(ids)

        def run() -> object:
            with torch.no_grad():
                return peer.generate(ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False)

        return run

    result = paired(decode, rival(1), pairs=pairs)
    best = best_batch(rival)
    at_best = paired(decode, rival(best), pairs=pairs).ratio / best
    print_line(
        benchmark="autoregressive", row=size, what="cached greedy decoding", **result.as_dict(),
        tokens_per_second=round(new / sorted(result.ours)[len(result.ours) // 2], 1), rival_best_batch=best,
        ratio_best_batch=round(at_best, 3),
    )  # fmt: skip

    @torch.no_grad()
    def prefill() -> object:
        cache = ours.new_cache(1, FRAMES, GRID)
        condition = ours.condition({}, 1, FRAMES)
        return ours.step(ours.patchify(past), condition, GRID, cache, last=True)

    def rival_prefill() -> object:
        with torch.no_grad():
            return peer(past.view(1, -1), use_cache=True, logits_to_keep=1).logits

    print_line(
        benchmark="autoregressive", row=size, what="prefill", **paired(prefill, rival_prefill, pairs=pairs).as_dict()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--pairs", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    for size in arguments.rows:
        measure(size, arguments.pairs)


if __name__ == "__main__":
    main()
