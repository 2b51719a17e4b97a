"""Attention behind one signature, and later the meshes and collectives that spread it.

attention    attention(q, k, v, q_segments, kv_segments, mask=...) over a registry of kernels, with the plain fp64 twin
varlen_cuda  the kernels for CUDA: flash-attn and torch's own
"""

__all__ = ["attention", "varlen_cuda"]
