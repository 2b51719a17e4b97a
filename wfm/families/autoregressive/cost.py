"""What the autoregressive transformer costs, by part, for one pass over a whole video (training, or the prefill of a decoding).

M positions in all (batch times t h w), N of one sample, L text tokens, d width, D width of the heads together, K that of the
keys. Attention is counted in full though it is causal, as torch's counter counts it; products of the norms are left out.
"""

import math

from wfm.errors import ConfigError
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.cost.parts import Part, Video, attention, encoders_apart, product, total
from wfm.models.cost.report import Cost, latent_size
from wfm.models.cost.work import Work
from wfm.models.slots import of_slot
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.video_tokenizer import TokenizerCard


def autoregressive_parts(
    config: AutoregressiveConfig, *, batch: int, positions: int, frames: int, text: int
) -> tuple[Part, ...]:
    """Embedding, attention, cross-attention to each context, feed-forward, vectors, norms and output."""
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
    for name, width in config.contexts.items():
        context = product(2 * keys * width, 4 * batch * text * keys * width, fixed_input=True)
        cross = total(
            [
                linear(d, inner, rows),
                context,
                attention(rows, text, inner),
                linear(inner, d, rows),
                Part("", 2 * config.head_dim),
            ]
        )
        parts.append(cross.times(config.layers, "cross-attention" + ("" if name == "text" else f" to {name}")))
    hidden = config.action_hidden
    for name, slot in of_slot(config.slots, "vector").items():
        first = product((slot.width + 1) * hidden, 2 * batch * frames * slot.width * hidden, fixed_input=True)
        parts.append((first + product((hidden + 1) * d, 2 * batch * frames * hidden * d)).times(1, name))
    if config.extrapolate:
        parts.append(Part("extrapolated tokens", vocabulary))
    norms = config.layers * (2 + len(config.contexts)) + 1
    parts.append(Part("norms", norms * d))
    parts.append(product(vocabulary, 2 * rows * vocabulary).times(1, "output"))
    return tuple(parts)


def cost(
    config: AutoregressiveConfig,
    video: Video | None,
    *,
    batch: int,
    text_tokens: int,
    tokenizer: TokenizerCard | None,
) -> Cost:
    """Of one pass over a whole video of DV8x16x16's tokens. What training keeps for the backward pass is not counted."""
    made_by = TokenizerConfig(
        temporal_compression=config.temporal_compression, spatial_compression=16, latent_channels=len(config.levels)
    )
    video = video or Video(33, 640, 1024)
    size = latent_size(made_by, video, multiple=(config.patch, config.patch))
    positions = math.prod(size) // config.patch**2
    if positions > config.context_positions:
        raise ConfigError(
            f"video {video}: {positions} positions exceed the model's context of {config.context_positions}"
        )
    text = text_tokens if config.contexts else 0
    if config.vocabulary != "flat" or config.patch > 1:
        raise ConfigError("costs are known of autoregressive models over plain tokens, without patches")
    words = (
        f"{config.layers} layers, width {config.dim}, {config.heads} heads of {config.head_dim} over {config.kv_heads} of "
        f"keys, feed-forward {config.ffn_dim}, {config.vocabulary_size:,} symbols, "
        + ("a token to begin with, " if config.begin_token else "")
        + (f"text {config.text_embed_dim} wide" if config.text_embed_dim else "no text")
        + encoders_apart(config.conditions)
    )
    return Cost(
        "autoregressive",
        words,
        autoregressive_parts(config, batch=batch, positions=positions, frames=size[0], text=text),
        video,
        batch,
        (1, *size),
        positions,
        text,
        notes={"tokenizer": f"tokens of {config.temporal_compression}x16x16"},
    )


def work(config: AutoregressiveConfig, shape: tuple[int, int, int], text_tokens: int) -> Work:
    """Of a sample of tokens (frames, rows, columns); of models over patches or digits the tokens alone are known."""
    positions = math.prod(shape) // config.patch**2
    if config.vocabulary != "flat" or config.patch > 1:
        return Work(positions)
    text = text_tokens if config.contexts else 0
    whole = total(autoregressive_parts(config, batch=1, positions=positions, frames=shape[0], text=text))
    return Work(positions, whole.flops + whole.backward)
