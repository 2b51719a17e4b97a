"""The tokenizers in closed formulas, part by part, at the size that each part works at.

    P positions (batch times frames times rows times columns), C channels in, O channels out

    factorised convolution    P 9 C O + P 3 O O    times 2 for multiply and add; 1x1x1 has P C O
    attention                 4 P C C + 2 P (h w) C over a frame, 4 P C C + 2 P t C back in time

Halving and doubling count as the single convolutions that they are on a CPU (wfm.models.tokenizer.fast_cpu): doubling takes 4
taps an axis of each input, which is less than repeating and convolving; and the wavelets as folded into the convolution
beside them.
"""

import itertools
import math
from dataclasses import dataclass, replace

from wfm.models.cost.parts import Part, Video, attention, product
from wfm.models.cost.report import Cost, latent_size
from wfm.models.cost.work import Work
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.video_tokenizer import TokenizerCard


@dataclass(frozen=True)
class Size:
    """What a layer works on."""

    batch: int
    frames: int
    rows: int
    columns: int

    @property
    def positions(self) -> int:
        """Of the whole batch."""
        return self.batch * self.frames * self.rows * self.columns

    def halved(self, *, space: bool, time: bool) -> "Size":
        """After halving; a first frame stays a first frame."""
        rows, columns = (self.rows // 2, self.columns // 2) if space else (self.rows, self.columns)
        return replace(self, frames=(self.frames + 1) // 2 if time else self.frames, rows=rows, columns=columns)

    def doubled(self, *, space: bool, time: bool) -> "Size":
        """After doubling: 1 + n frames are 1 + 2n."""
        rows, columns = (self.rows * 2, self.columns * 2) if space else (self.rows, self.columns)
        return replace(self, frames=2 * self.frames - 1 if time else self.frames, rows=rows, columns=columns)


def convolution(
    inputs: int, outputs: int, taps: int, positions: int, *, fixed_input: bool = False, saved: int = 0
) -> Part:
    """A convolution with bias that is evaluated at `positions` with `taps` taps each."""
    flops = 2 * positions * inputs * outputs * taps
    return product((inputs * taps + 1) * outputs, flops, fixed_input=fixed_input, saved=saved)


def encoder_parts(config: TokenizerConfig, size: Size) -> tuple[Part, ...]:
    """From Haar patches of `size` to latents."""
    layers = Layers(config)
    widths = config.channels
    values = config.in_channels * config.patch_size**config.dimensions
    first = layers.ends(values, widths[0], size, fixed_input=True) + layers.haar(widths[0], config.end_kernel**2)
    parts = [_named("encoder first convolution", first)]
    for level, (width, wider) in enumerate(itertools.pairwise(widths)):
        part = layers.residuals(width, wider, config.encoder_blocks, size)
        space, time = config.halved(level)
        if space or time:
            part += layers.down(wider, size, space=space, time=time)
            size = size.halved(space=space, time=time)
        parts.append(_named(f"encoder level {level + 1}", part))
    parts.append(_named("encoder middle", layers.middle(widths[-1], size)))
    last = layers.norm(widths[-1], size) + layers.ends(widths[-1], config.z_channels, size)
    parts.append(_named("encoder last convolution", last))
    parts.append(_named("to latents", convolution(config.z_channels, config.latent_channels, 1, size.positions)))
    return tuple(parts)


def decoder_parts(config: TokenizerConfig, size: Size) -> tuple[Part, ...]:
    """From latents of `size` to Haar patches."""
    layers = Layers(config)
    widths = (config.channels[-1], *reversed(config.channels[1:]))
    values = config.in_channels * config.patch_size**config.dimensions
    parts = [
        _named("from latents", convolution(config.latent_channels, config.z_channels, 1, size.positions)),
        _named("decoder first convolution", layers.ends(config.z_channels, widths[0], size)),
        _named("decoder middle", layers.middle(widths[0], size)),
    ]
    for level, (width, narrower) in enumerate(itertools.pairwise(widths)):
        part = layers.residuals(width, narrower, config.decoder_blocks, size)
        space, time = config.doubled(level)
        if space or time:
            part += layers.up(narrower, size, space=space, time=time)
            size = size.doubled(space=space, time=time)
        parts.append(_named(f"decoder level {level + 1}", part))
    seen = 3 * values if layers.factorised(config.end_kernel) else config.end_kernel**2 * widths[-1]
    last = layers.norm(widths[-1], size) + layers.ends(widths[-1], values, size) + layers.haar(seen + 1, 1)
    parts.append(_named("decoder last convolution", last))
    return tuple(parts)


def linear_code_parts(config: TokenizerConfig, latents: Size) -> tuple[Part, Part]:
    """The linear code beside the networks: (encoding, decoding); the parameters of each with it."""
    first = config.in_channels * config.spatial_compression**2
    sizes = ((first, 1), (first * config.temporal_compression, latents.frames - 1))
    k, places = config.latent_channels, latents.batch * latents.rows * latents.columns
    encoding = decoding = Part("", 0)
    for values, frames in sizes:
        rows = places * frames
        encoding += convolution(values, k, 1, rows, fixed_input=True, saved=rows * values)
        decoding += convolution(k, values, 1, rows, saved=rows * k)
    return _named("linear code, encoding", encoding), _named("linear code, decoding", decoding)


class Layers:
    """The layers of a configuration: factorised in space and time for video, plain for images."""

    def __init__(self, config: TokenizerConfig) -> None:
        self.config, self.video = config, config.dimensions == 3

    def factorised(self, kernel: int) -> bool:
        """Whether a convolution of this kernel has a part in time."""
        return self.video and kernel > 1

    def spread(self, inputs: int, outputs: int, size: Size, kernel: int = 3, *, fixed_input: bool = False) -> Part:
        """The convolution of residual blocks: k x k in space, then k in time."""
        places = size.positions
        part = convolution(inputs, outputs, kernel**2, places, fixed_input=fixed_input, saved=places * inputs)
        if self.factorised(kernel):
            seen = kernel * places - places // size.frames  # the taps on the repeated first frame are added up first
            flops = convolution(outputs, outputs, 1, seen).flops
            part += product((kernel * outputs + 1) * outputs, flops, saved=places * outputs)
        return part

    def ends(self, inputs: int, outputs: int, size: Size, *, fixed_input: bool = False) -> Part:
        """The first and last convolutions."""
        return self.spread(inputs, outputs, size, self.config.end_kernel, fixed_input=fixed_input)

    def haar(self, rows: int, taps: int) -> Part:
        """Folding the wavelets into weights (see wfm.models.tokenizer.haar): every level is a small product for each of
        `rows * taps` rows of weights."""
        p, axes = self.config.patch_size, self.config.dimensions
        return product(
            0, 2 * 2**axes * int(math.log2(p)) * self.config.in_channels * p**axes * rows * taps, fixed_input=True
        )

    def norm(self, channels: int, size: Size) -> Part:
        """Norm and SiLU: keeps its input and what the SiLU saw."""
        return Part("", 2 * channels, saved=2 * size.positions * channels)

    def residuals(self, inputs: int, outputs: int, count: int, size: Size) -> Part:
        """The residual blocks of a level."""
        part = Part("", 0)
        for index in range(count):
            width = inputs if index == 0 else outputs
            part += self.norm(width, size) + self.spread(width, outputs, size)
            part += self.norm(outputs, size) + self.spread(outputs, outputs, size)
            if width != outputs:
                part += convolution(width, outputs, 1, size.positions)
        return part

    def middle(self, channels: int, size: Size) -> Part:
        """Block, attention, block."""
        part = self.residuals(channels, channels, self.config.mid_blocks, size)
        if self.config.mid_attention:
            part += self.attention(channels, size, size.rows * size.columns)
            if self.video:
                part += self.attention(channels, size, size.frames)
        return part

    def attention(self, channels: int, size: Size, seen: int) -> Part:
        """Single-head attention of every position to `seen` others; queries, keys, values and output are 1x1x1."""
        projections = convolution(channels, channels, 1, size.positions).times(4)
        scores = attention(size.positions, seen, channels, saved=6 * size.positions * channels)
        return projections + scores + Part("", 2 * channels)

    def down(self, channels: int, size: Size, *, space: bool, time: bool) -> Part:
        """Halving in space, then in time, then 1x1x1."""
        part = Part("", 0)
        if space:
            before, size = size, size.halved(space=True, time=False)
            part += convolution(channels, channels, 9, size.positions, saved=before.positions * channels)
        if time:
            before, size = size, size.halved(space=False, time=True)
            part += convolution(channels, channels, 3, size.positions, saved=_padded(channels, before, 2))
        if self.video:
            part += convolution(channels, channels, 1, size.positions, saved=size.positions * channels)
        return part

    def up(self, channels: int, size: Size, *, space: bool, time: bool) -> Part:
        """Doubling in time, then in space, then 1x1x1. A transposed convolution sees each input once: 4 taps in time (and one
        frame of the past more), 16 in space, of which 3 and 9 weights are parameters."""
        part = Part("", 0)
        if time:
            seen = replace(size, frames=size.frames + 1)
            flops = convolution(channels, channels, 4, seen.positions).flops
            part += product((3 * channels + 1) * channels, flops, saved=seen.positions * channels)
            size = size.doubled(space=False, time=True)
        if space:
            flops = convolution(channels, channels, 16, size.positions).flops
            part += product((9 * channels + 1) * channels, flops, saved=size.positions * channels)
            size = size.doubled(space=True, time=False)
        if self.video:
            part += convolution(channels, channels, 1, size.positions, saved=size.positions * channels)
        return part


def _padded(channels: int, size: Size, frames: int) -> int:
    """Numbers of a copy of `size` with `frames` frames of the past in front."""
    return replace(size, frames=size.frames + frames).positions * channels


def _named(name: str, part: Part) -> Part:
    return replace(part, name=name)


def cost(
    config: TokenizerConfig,
    video: Video | None,
    *,
    batch: int,
    text_tokens: int,
    tokenizer: TokenizerCard | None,
) -> Cost:
    """Of encoding and decoding; without a video 49 frames of 720p, or an image."""
    video = video or Video(1 if config.dimensions == 2 else 49, 720, 1280)
    frames, rows, columns = latent_size(config, video)
    p, video_frames = config.patch_size, video.frames
    if config.dimensions == 3:
        video_frames = 1 + (video.frames - 1) // p
    patches = Size(batch, video_frames, video.height // p, video.width // p)
    latents = Size(batch, frames, rows, columns)
    parts = [*encoder_parts(config, patches), *decoder_parts(config, latents)]
    if config.linear_code:
        parts += linear_code_parts(config, latents)
    kind = f"FSQ {list(config.levels)}: {config.vocabulary_size:,} symbols" if config.discrete else "continuous"
    words = (
        f"{'video' if config.dimensions == 3 else 'image'} tokenizer {config.temporal_compression}x"
        f"{config.spatial_compression}x{config.spatial_compression}, widths {list(config.channels)}, "
        f"Haar patches of {p}, {kind}"
    )
    return Cost(
        "tokenizer",
        words,
        tuple(parts),
        video,
        batch,
        (config.latent_channels, frames, rows, columns),
        frames * rows * columns,
        once="encode and decode",
    )


def work(config: TokenizerConfig, shape: tuple[int, int, int], text_tokens: int = 0) -> Work:
    """Of encoding and decoding a video (frames, height, width), and back. Tokens are positions of its latents. What judges the
    reconstruction (features, flow, discriminator) is not counted."""
    of_all = cost(config, Video(*shape), batch=1, text_tokens=0, tokenizer=None)
    return Work(of_all.tokens, of_all.training_flops)
