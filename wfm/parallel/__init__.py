"""Attention behind one signature; the ranks of a run and what they agree on; later the meshes that spread a model.

attention    attention(q, k, v, q_segments, kv_segments, mask=...) over a registry of kernels, with the plain fp64 twin
segments     the segments of a pack as a tensor, so that one graph serves all packs
dense        kernels of dense batches, the plain twin in fp64 among them; by_segment: packs by them
opaque       the same as one operation that torch.compile does not look into
block_causal causal by blocks (frame order), in one call
varlen_cuda  the kernels for CUDA: flash-attn and torch's own
ranks        join() -> Ranks: decisions of all, the gradient of the whole batch; ALONE, the twin of one process
"""

__all__ = ["attention", "block_causal", "by_segment", "dense", "opaque", "ranks", "segments", "varlen_cuda"]
