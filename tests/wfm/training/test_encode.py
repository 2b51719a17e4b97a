"""Encoding windows: order, mirror images, statistics, batches of one shape in bounded memory."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from wfm.data.encoded_samples import encoded_samples, require_samples
from wfm.data.windows import Window
from wfm.errors import ConfigError
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.training import encode
from wfm.training.encode import Picture, encode_pictures
from wfm.training.encode_config import EncodingConfig
from wfm.training.moments import Moments, write_summary

NETWORK = {
    "temporal_compression": 4,
    "spatial_compression": 4,
    "latent_channels": 3,
    "channels": [8, 8],
    "encoder_blocks": 1,
    "decoder_blocks": 1,
    "mid_blocks": 0,
    "mid_attention": False,
    "linear_code": True,
}


def tokenizer(**more) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig.parse({**NETWORK, **more})).eval()


def window(number: int) -> Window:
    return Window(
        clip_id=f"clip{number}",
        session_id="s",
        video_id="v",
        source="x.mp4",
        start_frame=3,
        start_seconds=0.5,
        fps=24.0,
        frames=frames(number),
    )


def frames(number: int, shape: tuple[int, int, int] = (9, 8, 8)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8)


def encoded(pictures: list[np.ndarray], network: Tokenizer | None = None, **config) -> list[dict[str, np.ndarray]]:
    rows = [({"number": number}, each) for number, each in enumerate(pictures)]
    found = list(encode_pictures(network or tokenizer(), iter(rows), EncodingConfig(**config)))
    assert [row["number"] for row, _ in found] == list(range(len(pictures))), "in the order in which they came"
    return [arrays for _, arrays in found]


def test_batch_size_is_only_how():
    one, two = (encoded([frames(i) for i in range(4)], batch_size=n) for n in (1, 3))
    for a, b in zip(one, two, strict=True):
        assert a["latents"].shape == (3, 3, 2, 2)
        assert np.allclose(a["latents"], b["latents"], atol=1e-5)
    assert EncodingConfig(batch_size=1, batch_pixels=5).what() == EncodingConfig(batch_size=3).what()


def test_tokens_of_a_discrete_tokenizer():
    (found,) = encoded([frames(0)], tokenizer(levels=[4, 3, 3]))
    assert found["tokens"].dtype == np.int32
    assert found["tokens"].shape == (3, 2, 2)
    (found,) = encoded([frames(0)], tokenizer(levels=[3000, 3000, 3000]))  # before: ids cut to 32 bits
    assert found["tokens"].dtype == np.int64
    assert int(found["tokens"].min()) >= 0
    assert int(found["tokens"].max()) > 2**31


def test_moments_of_parts_are_those_of_the_whole():
    latents = torch.randn(10, 3, 4, 2, 2) * 3 + 1
    whole, parts = Moments(2), Moments(2)
    whole.add(latents)
    for part in latents.split(4):
        piece = Moments(2)
        piece.add(part)
        parts.merge(Moments(2, json.loads(json.dumps(piece.values()))))
    parts.merge(Moments(2, json.loads(json.dumps(Moments(2).values()))))  # a part without training samples
    one, two = whole.statistics(), parts.statistics()
    assert np.allclose(one["mean"], two["mean"])
    assert np.allclose(one["std"], two["std"])
    wanted = torch.stack([latents[:, :, :1].std((0, 2, 3, 4)), latents[:, :, 1:].std((0, 2, 3, 4))], 1)
    assert np.allclose(one["std"], wanted, rtol=0.03)


def test_moments_of_mixed_shapes_count_every_latent_once():
    """Images have the first latent frame alone, and a large sample counts for more than a small one."""
    latents = [torch.randn(1, 3, *shape) * scale for shape, scale in (((1, 4, 6), 1), ((3, 2, 2), 4), ((5, 2, 4), 2))]
    found = Moments(2)
    for each in latents:
        found.add(each)
    first = torch.cat([each[0, :, 0].flatten(1) for each in latents], 1)
    rest = torch.cat([each[0, :, 1:].flatten(1) for each in latents], 1)
    for column, values in enumerate((first, rest)):
        assert np.allclose([row[column] for row in found.statistics()["mean"]], values.mean(1), atol=1e-6)
        assert np.allclose([row[column] for row in found.statistics()["std"]], values.std(1, correction=0), atol=1e-6)


def test_shards_are_encoded_split_by_split(tmp_path, monkeypatch):
    def decoded(path, size, exclude):
        return iter([window(int(path.name))] if path.name != "9" else [])

    monkeypatch.setattr(encode, "decoded_clips", decoded)
    monkeypatch.setattr(encode, "clip_windows", lambda clip, **_: iter([clip] if clip.clip_id != "clip2" else []))
    config = EncodingConfig(mirror=True, batch_size=3)
    shards = {
        "train": [tmp_path / "0", tmp_path / "1", tmp_path / "2"],
        "val": [tmp_path / "3"],
        "test": [tmp_path / "9"],
    }
    counts = encode.encode_shards(tokenizer(), shards, config, tmp_path / "out")
    assert counts == {"clips": 4, "windows": 5, "too_short": 1, "too_small": 0, "frames_left_over": 0}
    train = require_samples(tmp_path / "out", "train")
    assert list(train.ids) == ["clip0:3", "clip0:3:mirrored", "clip1:3", "clip1:3:mirrored"]
    assert train.table.column("mirrored").to_pylist() == [False, True] * 2
    (turned,) = encoded([frames(1)[:, :, ::-1]])
    assert np.allclose(train.read(3)["latents"], turned["latents"], atol=1e-5)
    assert len(encoded_samples(tmp_path / "out", "val")) == 1, "never mirrored"
    assert encoded_samples(tmp_path / "out", "test") is None
    write_summary([tmp_path / "out"], tmp_path)
    assert np.array(json.loads((tmp_path / "latent_statistics.json").read_text())["std"]).shape == (3, 2)


def test_a_guess_is_made_from_the_given_frames_alone():
    both = [frames(i) for i in range(2)]
    found = encoded(both, extrapolate_from=5, batch_size=2)
    changed = [np.concatenate([each[:5], 255 - each[5:]]) for each in both]
    for one, other in zip(found, encoded(changed, extrapolate_from=5, batch_size=2), strict=True):
        assert one["extrapolated"].shape == one["latents"].shape
        assert np.allclose(one["extrapolated"][:, :2], one["latents"][:, :2], atol=1e-5), "5 frames are 2 latents"
        assert np.array_equal(other["extrapolated"], one["extrapolated"]), "the future must not leak into it"
        assert not np.array_equal(other["latents"], one["latents"])


SHAPES = [(1, 8, 12), (9, 8, 8), (1, 8, 8), (5, 12, 8)]


def test_batches_are_of_one_shape_and_no_larger_than_allowed(monkeypatch):
    sizes = []
    inner = encode._encoded

    def watched(network, batch, config):
        sizes.append(batch.shape)
        return inner(network, batch, config)

    monkeypatch.setattr(encode, "_encoded", watched)
    pictures = [frames(i, SHAPES[i % 4]) for i in range(12)]
    found = encoded(pictures, batch_size=3, batch_pixels=9 * 64 * 2)
    for each, pixels in zip(found, pictures, strict=True):
        (alone,) = encoded([pixels])
        assert np.allclose(each["latents"], alone["latents"], atol=1e-5)
    batches = sizes[: -len(pictures)]
    assert sum(shape[0] for shape in batches) == len(pictures)
    assert {shape[1:4]: max(s[0] for s in batches if s[1:4] == shape[1:4]) for shape in batches} == {
        (1, 8, 12): 3, (9, 8, 8): 2, (1, 8, 8): 3, (5, 12, 8): 2,
    }  # fmt: skip


@pytest.mark.parametrize("bounded", [True, False])
def test_what_waits_is_bounded_however_rare_a_shape_is(monkeypatch, bounded):
    """One picture of a shape that does not come again, and then many: they are not all held until it has company."""
    most = 3 * frames(0).nbytes  # and the latents of 36 pictures
    monkeypatch.setattr(encode, "_HELD", most if bounded else 1 << 40)
    out = 0
    waiting = []

    def pictures() -> Iterator[Picture]:
        yield {}, frames(0, (5, 12, 8))
        for number in range(60):
            waiting.append(number + 1 - out)
            yield {}, frames(number)

    for _ in encode_pictures(tokenizer(), pictures(), EncodingConfig(batch_size=8)):
        out += 1
    assert out == 61
    assert (max(waiting) < 50) == bounded


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        assert encode.chosen_device("cuda").type == "cuda"
    else:
        with pytest.raises(ConfigError, match="device = 'cuda': torch sees no GPU here"):
            encode.chosen_device("cuda")
    assert encode.chosen_device("cpu").type == "cpu"


def test_a_column_of_statistics_for_each_latent_frame_and_the_last_for_the_rest():
    latents = torch.randn(50, 2, 5, 3, 3, dtype=torch.float64) * torch.arange(1, 6)[:, None, None]
    moments = Moments(3)
    moments.add(latents)
    groups = [latents[:, :, :1], latents[:, :, 1:2], latents[:, :, 2:]]
    wanted = np.stack([part.std((0, 2, 3, 4), correction=0) for part in groups], 1)
    assert np.allclose(moments.statistics()["std"], wanted, rtol=1e-2)  # of a mean that is nearly 0
    short = Moments(16)
    short.add(latents)
    assert len(short.statistics()["std"][0]) == 5


def test_windows_of_one_latent_frame_have_one_column_of_statistics():
    moments = Moments(2)
    moments.add(torch.randn(5, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    found = moments.statistics()
    assert [len(row) for row in found["mean"]] == [1, 1, 1]
    assert np.isfinite(found["std"]).all()


def test_of_clips_the_numbers_of_windows_are_in_no_key():
    of_windows = [{"size": (32, 32)}, {"num_frames": 17}, {"stride_frames": 3}]
    clips = EncodingConfig(take="clips").what()
    assert all(EncodingConfig(take="clips", **values).what() == clips for values in of_windows)
    assert EncodingConfig(take="clips", max_frames=9).what() != clips
    windows = [EncodingConfig(**values).what() for values in ({}, *of_windows)]
    assert all(one != other for i, one in enumerate(windows) for other in windows[:i])
    assert EncodingConfig(take="clips", stride_frames=3).resolved()["stride_frames"] == 3, "told as it was set"
