"""Encoding windows: order, mirror images, statistics, mixed actions."""

import json

import numpy as np
import pyarrow.parquet as pq
import torch

from wfm.data.windows import Window
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.training import encode
from wfm.training.encode import encode_windows
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
    rng = np.random.default_rng(number)
    return Window(
        clip_id=f"clip{number}",
        session_id="s",
        video_id="v",
        source="x.mp4",
        start_frame=3,
        start_seconds=0.5,
        fps=24.0,
        frames=rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8),
    )


def test_mirror_images_follow():
    config = EncodingConfig(batch_size=2)
    found = [window(i) for i in range(3)]
    arrays, rows = encode_windows(tokenizer(), found, config, mirror=True)
    assert arrays["latents"].shape == (6, 3, 3, 2, 2)
    turned = [Window(**{**w.__dict__, "frames": w.frames[:, :, ::-1].copy()}) for w in found]
    again, _ = encode_windows(tokenizer(), turned, config, mirror=False)
    assert torch.allclose(arrays["latents"][3:], again["latents"], atol=1e-5)
    assert [row["mirrored"] for row in rows] == [False] * 3 + [True] * 3
    assert len({row["sample_id"] for row in rows}) == 6


def test_batch_size_is_only_how():
    found = [window(i) for i in range(3)]
    one, two = (
        encode_windows(tokenizer(), found, EncodingConfig(batch_size=n), mirror=False)[0]["latents"] for n in (1, 3)
    )
    assert torch.allclose(one, two, atol=1e-5)
    assert EncodingConfig(batch_size=1).what() == EncodingConfig(batch_size=3).what()


def test_tokens_of_a_discrete_tokenizer():
    arrays, _ = encode_windows(tokenizer(levels=[4, 3, 3]), [window(0)], EncodingConfig(), mirror=False)
    assert arrays["tokens"].dtype == torch.int32
    assert arrays["tokens"].shape == (1, 3, 2, 2)
    one = tokenizer(levels=[3000, 3000, 3000])  # before: ids cut to 32 bits
    arrays, _ = encode_windows(one, [window(0)], EncodingConfig(), mirror=False)
    assert arrays["tokens"].dtype == torch.int64
    assert int(arrays["tokens"].min()) >= 0
    assert int(arrays["tokens"].max()) > 2**31


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


def test_shards_are_encoded_split_by_split(tmp_path, monkeypatch):
    def decoded(path, size):
        return iter([window(int(path.name))] if path.name != "9" else [])

    monkeypatch.setattr(encode, "decoded_clips", decoded)
    monkeypatch.setattr(encode, "clip_windows", lambda clip, **_: iter([clip] if clip.clip_id != "clip2" else []))
    config = EncodingConfig(mirror=True)
    shards = {
        "train": [tmp_path / "0", tmp_path / "1", tmp_path / "2"],
        "val": [tmp_path / "3"],
        "test": [tmp_path / "9"],
    }
    counts = encode.encode_shards(tokenizer(), shards, config, tmp_path / "out")
    assert counts == {"clips": 4, "windows": 5, "too_short": 1}
    names = pq.read_table(tmp_path / "out/train/samples.parquet").column("sample_id").to_pylist()
    assert names == ["clip0:3", "clip1:3", "clip0:3:mirrored", "clip1:3:mirrored"]
    assert pq.read_table(tmp_path / "out/val/samples.parquet").num_rows == 1  # never mirrored
    assert not (tmp_path / "out/test").exists()
    write_summary([tmp_path / "out"], tmp_path)
    assert np.array(json.loads((tmp_path / "latent_statistics.json").read_text())["std"]).shape == (3, 2)


def test_a_guess_is_made_from_the_given_frames_alone():
    config = EncodingConfig(extrapolate_from=5, batch_size=2)
    found = [window(i) for i in range(2)]
    arrays, _ = encode_windows(tokenizer(), found, config, mirror=False)
    assert arrays["extrapolated"].shape == arrays["latents"].shape
    assert torch.allclose(arrays["extrapolated"][:, :, :2], arrays["latents"][:, :, :2], atol=1e-5), (
        "5 frames are 2 latents"
    )
    changed = [Window(**{**w.__dict__, "frames": np.concatenate([w.frames[:5], 255 - w.frames[5:]])}) for w in found]
    again, _ = encode_windows(tokenizer(), changed, config, mirror=False)
    assert torch.equal(again["extrapolated"], arrays["extrapolated"]), "the future must not leak into the extrapolation"
    assert not torch.equal(again["latents"], arrays["latents"])


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
