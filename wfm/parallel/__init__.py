"""Attention behind one signature; the ranks of a run and what they agree on; later the meshes that spread a model.

attention    attention(q, k, v, q_segments, kv_segments, mask=...) over a registry of kernels, with the plain fp64 twin
block_causal  causal by blocks (frame order), in one call
varlen_cuda  the kernels for CUDA: flash-attn and torch's own
ranks        join() -> Ranks: decisions of all, the gradient of the whole batch; ALONE, the twin of one process
"""

__all__ = ["attention", "block_causal", "ranks", "varlen_cuda"]
