"""What the autoregressive transformer costs, by part, for one pass over a whole video (training, or the prefill of a decoding).

M positions in all (batch times t h w), N of one sample, L text tokens, d width, D width of the heads together, K that of the
keys. Attention is counted in full though it is causal, as torch's counter counts it; products of the norms are left out.
"""

from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.cost.parts import Part, attention, product, total


def autoregressive_parts(config: AutoregressiveConfig, *, batch: int, positions: int, text: int) -> tuple[Part, ...]:
    """Embedding, attention, cross-attention, feed-forward, norms and output."""
    d, rows = config.dim, batch * positions
    inner, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    vocabulary = config.vocabulary_size * d

    def linear(inputs: int, outputs: int, count: int) -> Part:
        return product(inputs * outputs, 2 * count * inputs * outputs)

    own = total(
        [
            linear(d, inner + 2 * keys, rows),
            attention(rows, positions, inner),
            linear(inner, d, rows),
            Part("", 2 * config.head_dim),
        ]
    )
    parts = [
        Part("token embedding", config.embedding_rows * d),
        own.times(config.layers, "self-attention"),
        linear(d, 3 * config.ffn_dim, rows).times(config.layers, "feed-forward"),
    ]
    if config.text_embed_dim:
        told = product(
            2 * keys * config.text_embed_dim, 4 * batch * text * keys * config.text_embed_dim, fixed_input=True
        )
        cross = total(
            [
                linear(d, inner, rows),
                told,
                attention(rows, text, inner),
                linear(inner, d, rows),
                Part("", 2 * config.head_dim),
            ]
        )
        parts.append(cross.times(config.layers, "cross-attention"))
    norms = config.layers * (2 + (config.text_embed_dim > 0)) + 1
    parts.append(Part("norms", norms * d))
    parts.append(product(vocabulary, 2 * rows * vocabulary).times(1, "output"))
    return tuple(parts)
