"""Attention behind one signature; the ranks of a run, what they agree on, and models that are spread over them.

attention    attention(q, k, v, q_segments, kv_segments, mask=...) over a registry of kernels, with the plain fp64 twin
segments     the segments of a pack as a tensor, so that one graph serves all packs
dense        kernels of dense batches, the plain twin in fp64 among them; by_segment: packs by them
opaque       the same as one operation that torch.compile does not look into
block_causal causal by blocks (frame order), in one call
varlen_cuda  the kernels for CUDA: flash-attn and torch's own
ranks        join() -> Ranks: decisions of all, the gradient of the whole batch; ALONE, the twin of one process
spread       a model whose parameters are spread over ranks (FSDP2, HSDP); Whole, the twin of one that is not
shards       tensors of which each rank holds a part; alike: what must be the same on all
"""

__all__ = [
    "alike", "attention", "block_causal", "by_segment", "dense", "opaque", "ranks", "segments", "shards", "spread",
    "varlen_cuda",
]  # fmt: skip
