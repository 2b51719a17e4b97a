"""An embedding of how a clip looks and changes, made without any trained weights: ``dct3d-v1``.

It is a stated function of the pixels, for finding copies, and knows nothing of meaning: two takes of one subject are far apart.

1. 8 frames at the middles of 8 equal stretches of the clip, 32 x 32 by area, as Y, Cb, Cr (BT.601), chroma times 1.5.
2. A cosine transform over time and both picture axes, of which the lowest 4 x 8 x 8 coefficients stay.
3. Weights: times (1 + spatial frequency) ^ 0.5, since fine detail tells scenes apart that share a layout; times 2 where time
   changes, so that a resting camera does not make all its clips alike. The picture's mean colour is left out (exposure
   differs).
4. A fixed matrix of +-1 from SHAKE-256 takes the 768 numbers to 256; then the length is made 1.

A clip with next to no contrast (black, one colour) has no direction: its embedding is all zeros, equal to nothing, and
``flat`` is true.

Copies that were re-encoded, scaled, or cut one frame shorter stay within cos >= 0.98; the measured figures stand in
`dedup`, whose threshold they give. Mirrored copies and another playing speed are not found; cropped, trimmed
and letterboxed ones are what `perceptual_pairs` is for, whose signatures (`signature`) are made here as well where asked.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic

from wfm.config import Config, how
from wfm.curation.arrays import array_module, to_numpy
from wfm.curation.embed.signature import Signature, SignatureFrames, signature_of
from wfm.curation.one_pass import one_pass
from wfm.curation.one_pass_consumers import at_middles, spread_frames
from wfm.curation.per_clip import Fetch, or_skip, run_per_clip
from wfm.curation.rows import EMBEDDING_WIDTH, Embedding
from wfm.curation.step import SkippedRow, skipped_by_reason
from wfm.errors import DataError
from wfm.parts.part import PartLike
from wfm.records import Clip

if TYPE_CHECKING:
    import pyarrow as pa

    from wfm.curation.one_pass import Consumer

MODEL: Literal["dct3d-v1"] = "dct3d-v1"
FRAMES, SIDE = 8, 32
KEPT_TIME, KEPT_SPACE = 4, 8
CHROMA_WEIGHT, DETAIL_POWER, CHANGE_WEIGHT = 1.5, 0.5, 2.0
FLAT = 0.25
"Length of the weighted coefficients below which a clip is flat: about 1 % of contrast."
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


class EmbedConfig(Config):
    """Which embedding, and where it is computed."""

    model: Literal["dct3d-v1", "clip", "cosmos-embed1", "torchscript"] = MODEL
    "Name of the embedding; dct3d-v1 is the one that needs no weights (`embedders` has the others)."
    weights_sha256: str = ""
    "Of the embedder's file or folder (`embedders.digest`); it decides the result, wherever the files lie."
    frames: int = pydantic.Field(8, ge=1)
    "Frames a trained embedder sees, at the middles of as many equal stretches of the clip."
    side: int = pydantic.Field(224, ge=1)
    "Height and width a trained embedder is given [pixels]."
    signatures: bool = False
    "Also write the table `signatures` for the perceptual tier of dedup_clips, from the same decode."
    weights: str = how("")
    "Local file or folder of the embedder."
    run_code: bool = how(False)
    "Allow embedders that run code which lies beside their weights (cosmos-embed1, torchscript)."
    device: Literal["cpu", "cuda"] = how("cpu")
    "Where the array maths runs: cpu (numpy) or cuda (cupy)."
    prefetch_bytes: int = how(64 << 20, ge=0, lt=2**63)
    "Decoded pictures that may wait for a trained embedder [bytes]; without one nothing is decoded ahead."


def embed_part(part: PartLike) -> tuple[dict[str, int], dict[str, int]]:
    """Embed the clips of one part; writes ``embeddings.parquet`` (and ``signatures.parquet``).

    Where the scores' part holds the same tables already (`made_by_score`), they are taken over and nothing is decoded.
    Returns (counts, skipped by reason). A clip that cannot be decoded is left out of both tables, and counted once.
    """
    import pyarrow.parquet as pq

    if "scores" in part.arguments:
        return _taken_over(part)
    signed: list[Signature] = []
    embedder = Embedder(part.config)
    answer = run_per_clip(part, lambda fetch: EmbedClip(embedder, fetch, signed), embedder.record, "embeddings")
    if part.config.signatures:
        pq.write_table(Signature.to_table(signed), part.out / "signatures.parquet", compression="zstd")
    return answer


def made_by_score(config: EmbedConfig, score_config: Mapping[str, Any]) -> bool:
    """Whether scores of ``score_config`` (as a manifest holds it) have embeddings of this very config beside them."""
    given = score_config.get("embed")
    mine = {name: value for name, value in config.what().items() if name in EmbedConfig.model_fields}
    return given is not None and EmbedConfig.parse(given).what() == mine


def without_weights(embed_clips: Mapping[str, Any]) -> dict[str, Any] | None:
    """The embedding that a config of embed_clips names, if it needs no weights: then it is made with the scores. A trained one
    stays in its own stage: trying another must not score every clip again."""
    wanted = {name: value for name, value in embed_clips.items() if name in EmbedConfig.model_fields}
    return wanted if wanted.get("model", MODEL) == MODEL else None


def _taken_over(part: PartLike) -> tuple[dict[str, int], dict[str, int]]:
    import pyarrow.parquet as pq

    scores = part.open_store().part(part.arguments["scores"])
    if scores.manifest.extra["inputs"]["clips"] != part.inputs["clips"]:
        raise DataError(f"the scores of part {part.name!r} were made from other clips: rerun score_clips on these")
    for name in ("embeddings", "signatures") if part.config.signatures else ("embeddings",):
        shutil.copyfile(scores.fetch(f"{name}.parquet"), part.out / f"{name}.parquet")
    skips = [dataclasses.replace(row, step=EmbedClip.name) for row in SkippedRow.from_table(scores.table("skips"))]
    pq.write_table(SkippedRow.to_table(skips), part.out / "skips.parquet", compression="zstd")
    rows = pq.read_metadata(part.out / "embeddings.parquet").num_rows
    return {"inputs": rows + len(skips), "outputs": rows}, skipped_by_reason(skips)


class Embedder:
    """The embedding that a config names, opened once for all clips."""

    def __init__(self, config: EmbedConfig) -> None:
        self.config = config
        self.trained: Callable[[np.ndarray], np.ndarray] | None = None
        self.record: type[Embedding] = Embedding
        if config.model != MODEL:
            from wfm.curation.embed.embedders import open_embedder

            where: dict[str, Any] = {"run_code": config.run_code, "device": config.device}
            self.trained = open_embedder(config.model, config.weights, config.weights_sha256, **where)
            probe = self.trained(np.zeros((config.frames, config.side, config.side, 3), np.uint8))
            self.record = Embedding.of_width(probe.size)

    def watch(self) -> "EmbedWatch":
        """Whoever looks at one clip for it."""
        return EmbedWatch(self)

    def vector(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [N, side, side, 3] -> float16 [D] of length 1, or zeros if the frames are flat. Raises `DataError`."""
        if self.trained is None:
            return embed(frames, self.config)
        made = self.trained(frames)
        if not np.isfinite(made).all():  # one such row would end up in the centres of every cluster
            raise DataError(
                f"embed_clips.model={self.config.model}: a clip's numbers are not finite: wrong weights or dtype"
            )
        return (made / max(float(np.linalg.norm(made)), 1e-12)).astype(np.float16)


class EmbedWatch:
    """Add ``consumers`` to a pass over a clip, then ask for its rows."""

    def __init__(self, embedder: Embedder) -> None:
        config = embedder.config
        self._embedder = embedder
        self._count, side = (FRAMES, SIDE) if embedder.trained is None else (config.frames, config.side)
        self._spread = spread_frames(self._count, (side, side))
        self._signature = SignatureFrames() if config.signatures else None

    @property
    def consumers(self) -> "list[Consumer]":
        return [self._spread] if self._signature is None else [self._spread, self._signature]

    def row(self, item: Clip) -> Embedding:
        """After the pass."""
        frames = at_middles(self._spread.pictures(), self._spread.video_seconds, self._count)
        vector = self._embedder.vector(frames)
        return Embedding(
            clip_id=item.clip_id,
            clip_sha256=item.clip_sha256,
            session_id=item.session_id,
            model=self._embedder.config.model,
            flat=not vector.any(),
            embedding=vector.tolist(),
        )

    def signatures(self, item: Clip) -> list[Signature]:
        """The same; none where none was asked for."""
        return [] if self._signature is None else [signature_of(item, *self._signature.result())]


class Embedded:
    """The rows of clips that were seen in somebody else's pass."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._rows: list[Embedding] = []
        self._signed: list[Signature] = []

    def add(self, watch: EmbedWatch, item: Clip) -> None:
        """After the pass over a clip."""
        self._rows.append(watch.row(item))
        self._signed += watch.signatures(item)

    def tables(self) -> "dict[str, pa.Table]":
        """By name, as `embed_part` writes them."""
        found = {"embeddings": self.embedder.record.to_table(self._rows)}
        return {**found, "signatures": Signature.to_table(self._signed)} if self.embedder.config.signatures else found


class EmbedClip:
    """The step: one `Clip` -> its `Embedding`, and its `Signature` into the list given. Skips a clip that cannot be decoded."""

    name = "embed"

    def __init__(self, embedder: Embedder, fetch: Fetch, signed: list[Signature] | None = None) -> None:
        self._embedder = embedder
        self._fetch = fetch
        self._signed = signed if signed is not None else []

    def __call__(self, item: Clip) -> Iterable[Embedding]:
        """One row. Raises `Skip` with the decoder's reason code."""
        watch = self._embedder.watch()
        ahead = self._embedder.config.prefetch_bytes if self._embedder.trained is not None else 0
        or_skip(one_pass, self._fetch(item.path), watch.consumers, prefetch_bytes=ahead)
        self._signed += watch.signatures(item)
        return [watch.row(item)]


def sample_frames(path: Path, count: int = FRAMES, side: int = SIDE) -> np.ndarray:
    """uint8 [count, side, side, 3] RGB, spread over a clip's time. Raises `DataError` for a clip that cannot be decoded."""
    spread = spread_frames(count, (side, side))
    one_pass(path, [spread])
    return at_middles(spread.pictures(), spread.video_seconds, count)


def embed(frames: np.ndarray, config: EmbedConfig | None = None) -> np.ndarray:
    """uint8 [8, 32, 32, 3] -> float16 [256] of length 1, or zeros if the frames are flat."""
    xp = array_module((config or EmbedConfig()).device)
    x = xp.astype(xp.asarray(frames), xp.float32) / 255
    x = x @ xp.asarray(_YCBCR.T.astype(np.float32))  # [T, H, W, 3]
    time, space = (xp.asarray(_cosines(n, k)) for n, k in ((FRAMES, KEPT_TIME), (SIDE, KEPT_SPACE)))
    x = xp.tensordot(time, x, axes=((1,), (0,)))  # [t, H, W, 3]
    x = xp.tensordot(space, x, axes=((1,), (1,)))  # [h, t, W, 3]
    x = xp.tensordot(space, x, axes=((1,), (2,)))  # [w, h, t, 3]
    x = xp.reshape(x * xp.asarray(_weights()), (-1,))
    if float(xp.sqrt(xp.sum(x * x))) < FLAT:
        return np.zeros(EMBEDDING_WIDTH, np.float16)
    y = x @ xp.asarray(_projection())
    return to_numpy(y / xp.sqrt(xp.sum(y * y))).astype(np.float16)


def _cosines(points: int, kept: int) -> np.ndarray:
    """Orthonormal DCT-II, the lowest ``kept`` rows: float32 [kept, points]."""
    rows = np.cos(np.pi * (np.arange(points) + 0.5)[None] * np.arange(kept)[:, None] / points) * np.sqrt(2 / points)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def _weights() -> np.ndarray:
    """float32 [w, h, t, 3] of step 3, and 0 for the mean colour of the picture at every time frequency."""
    line = np.arange(KEPT_SPACE)
    detail = (1 + np.hypot(line[:, None], line[None])) ** DETAIL_POWER
    detail[0, 0] = 0
    change = np.where(np.arange(KEPT_TIME) > 0, CHANGE_WEIGHT, 1.0)
    chroma = np.array([1.0, CHROMA_WEIGHT, CHROMA_WEIGHT])
    return (detail[:, :, None, None] * change[:, None] * chroma).astype(np.float32)


@lru_cache(maxsize=1)
def _projection() -> Any:
    """float32 [768, 256] of +-1 / sqrt(256): the bits of SHAKE-256, the same on every machine and numpy."""
    rows = KEPT_TIME * KEPT_SPACE * KEPT_SPACE * 3
    bits = np.frombuffer(hashlib.shake_256(MODEL.encode()).digest(rows * EMBEDDING_WIDTH // 8), np.uint8)
    signs = np.unpackbits(bits).reshape(rows, EMBEDDING_WIDTH).astype(np.float32) * 2 - 1
    return signs / np.float32(np.sqrt(EMBEDDING_WIDTH))
