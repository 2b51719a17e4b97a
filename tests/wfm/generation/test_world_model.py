import json

import numpy as np
import pytest
import torch

from wfm.actions import ActionSpec
from wfm.data.seeds import derived_seed
from wfm.errors import ConfigError, DataError
from wfm.families.autoregressive.decoding import continue_tokens, greedy
from wfm.families.diffusion_decoder.draw import TokenDecoder
from wfm.generation.world_model import WorldModel
from wfm.models.autoregressive import AutoregressiveTransformer
from wfm.models.diffusion import Denoiser
from wfm.models.diffusion_decoder.config import DecoderConfig
from wfm.models.diffusion_decoder.network import DiffusionDecoder
from wfm.models.family import FAMILIES
from wfm.models.folder import ModelCard
from wfm.models.tokenizer import Tokenizer

SEEDS = [3, 1, 4, 1]


def modes(family: str) -> tuple[str, ...]:
    """What a family can be asked for: a draw first, then its best single guesses."""
    return FAMILIES.load(family).modes


def test_the_past_comes_back_bit_for_bit(world_of, family, past, actions) -> None:
    for mode in modes(family):
        video = world_of(family).generate(past, actions, seeds=SEEDS, mode=mode)
        assert video.shape == (4, 3, 13, 16, 16)
        assert torch.equal(video[:, :, :5], past)
        assert video[:, :, 5:].abs().max() <= 1.0
        assert video[:, :, 5:].std() > 0


def test_the_same_call_gives_the_same_bits(world_of, family, past, actions) -> None:
    first, second = (world_of(family).generate(past, actions, seeds=SEEDS, mode=modes(family)[0]) for _ in range(2))
    assert torch.equal(first, second)


def test_a_sequence_does_not_depend_on_its_company(world_of, family, past, actions) -> None:
    """One of four, alone, and in another order: the same bits, since every batch has the same shape."""
    world = world_of(family)
    together = world.generate(past, actions, seeds=SEEDS, mode="sample")
    alone = world.generate(past[2:3], actions[2:3], seeds=SEEDS[2:3], mode="sample")
    turned = world.generate(past.flip(0), actions[::-1].copy(), seeds=SEEDS[::-1], mode="sample")
    assert torch.equal(together[2], alone[0])
    assert torch.equal(together, turned.flip(0))


def test_seeds_change_samples(world_of, family, past, actions) -> None:
    world = world_of(family)
    one, two = (world.generate(past, actions, seeds=[s] * 4, mode="sample")[:, :, 5:] for s in (1, 2))
    assert not torch.equal(one, two)


def test_greedy_needs_no_seed(world_of, past, actions) -> None:
    world = world_of("autoregressive")
    one, two = (world.generate(past, actions, seeds=[s] * 4, mode="greedy") for s in (1, 2))
    assert torch.equal(one, two)


def test_future_actions_change_the_future(world_of, family, past, actions) -> None:
    world = world_of(family)
    other = actions.copy()
    other[:, 9:, 0] += 60.0
    mode = modes(family)[1]
    one, two = (world.generate(past, a, seeds=SEEDS, mode=mode) for a in (actions, other))
    assert not torch.equal(one, two)
    assert not torch.equal(one, world.generate(past, None, seeds=SEEDS, mode=mode))


@pytest.mark.parametrize(
    "option",
    [
        {"steps": 5},
        {"sampler": "euler"},
        {"sampler": "res_2ab"},
        {"sampler": "dpm_2m"},
        {"sampler": "flow_euler"},
        {"sampler": "flow_heun"},
        {"sigma_max": 20.0},
        {"sigma_min": 0.2},
        {"augment_sigma": 0.1},
        {"guidance": {"scale": 3.0}},
    ],
)
def test_every_diffusion_option_has_an_effect(world_of, past, actions, option) -> None:
    one, two = (world_of("diffusion", **o).generate(past, actions, seeds=SEEDS) for o in ({}, option))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("option", [{"temperature": 0.05}, {"top_p": 0.05}])
def test_every_decoding_option_has_an_effect(world_of, past, actions, option) -> None:
    one, two = (world_of("autoregressive", **o).generate(past, actions, seeds=SEEDS) for o in ({"top_p": 1.0}, option))
    assert not torch.equal(one, two)


def test_long_futures_are_rolled_out_window_by_window(world_of, family, past, actions) -> None:
    world = world_of(family)
    long = np.concatenate([actions, actions[:, ::-1]], axis=1)[:, :24]
    mode = modes(family)[0]
    video = world.generate(past, long, num_frames=24, seeds=SEEDS, mode=mode)
    assert video.shape[2] == 24
    first = world.generate(past, long[:, :13], seeds=SEEDS, mode=mode)
    assert torch.equal(video[:, :, :13], first)
    if family == "autoregressive":  # tokens are passed on, see below
        return
    second = world.generate(
        video[:, :, 8:13], long[:, 8:21], seeds=[derived_seed(seed, 1) for seed in SEEDS], mode=mode
    )
    assert torch.equal(video[:, :, 13:21], second[:, :, 5:])


def test_long_token_futures_pass_their_tokens_on(world_of, past, actions, monkeypatch) -> None:
    """Frames are encoded once, at the start; the windows after the first begin with the last tokens of the one before."""
    world, encoded = world_of("autoregressive"), []
    tokens = world.tokenizer.tokens
    monkeypatch.setattr(
        world.tokenizer, "tokens", lambda video, **how: encoded.append(video.shape[2]) or tokens(video, **how)
    )
    long_actions = np.concatenate([actions, actions, actions], axis=1)[:, :25]
    video = world.generate(past, long_actions, num_frames=25, seeds=SEEDS, mode="greedy")
    assert encoded == [5] * len(encoded)
    with torch.no_grad():
        normal = torch.from_numpy(world.action_spec.normalise(long_actions)).to(past)
        held, made = tokens(past), tokens(past)
        for start, frames in (
            (0, 4),
            (2, 4),
            (4, 3),
        ):  # windows of 4 latent frames, 2 of them given, from frame 4 * start on
            window = normal[:, 4 * start : 4 * start + 4 * frames - 3]
            found = continue_tokens(world.model, {"past": held, "actions": window}, frames=frames, choose=greedy)
            made, held = torch.cat([made, found[:, 2:]], dim=1), found[:, 2:]
        wanted = world.tokenizer.decode_tokens(made[:, :7]).clamp(-1, 1)
    assert torch.allclose(video[:, :, 5:], wanted[:, :, 5:], atol=1e-6)


def test_a_diffusion_decoder_shows_the_tokens(world_of, past, actions) -> None:
    world = world_of("autoregressive")
    plain = world.generate(past, actions, seeds=SEEDS, mode="greedy")
    torch.manual_seed(0)
    continuous = Tokenizer(world.tokenizer.config.model_copy(update={"levels": ()}))
    network = {
        "in_channels": 3, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "text_embed_dim": 0,
        "adaln_lora_dim": 4, "concat_padding_mask": False, "max_size": (16, 16, 16),
    }  # fmt: skip
    config = {"levels": (4, 3, 2), "denoiser": {"network": network}, "embedding": "codes", "token_channels": 4}
    decoder = DiffusionDecoder(DecoderConfig.parse(config))
    world.use_decoder(TokenDecoder(decoder, continuous))
    shown = world.generate(past, actions, seeds=SEEDS, mode="greedy")
    assert torch.equal(shown[:, :, :5], past)
    assert not torch.equal(shown, plain)
    other = DiffusionDecoder(DecoderConfig.parse({**config, "levels": (4, 3)}))
    with pytest.raises(
        ConfigError, match=r"levels \(4, 3\), this autoregressive model speaks tokens of levels \(4, 3, 2\)"
    ):
        world.use_decoder(TokenDecoder(other, continuous))
    with pytest.raises(ConfigError, match="this diffusion model speaks in continuous latents"):
        world_of("diffusion").use_decoder(TokenDecoder(decoder, continuous))


def test_a_short_future_may_end_anywhere(world_of, family, past, actions) -> None:
    video = world_of(family).generate(past, actions[:, :7], num_frames=7, seeds=SEEDS, mode=modes(family)[1])
    assert video.shape[2] == 7


def test_a_bundle_brings_back_the_same_world(world_of, bundle_of, family, past, actions, tmp_path) -> None:
    world = world_of(family)
    again = WorldModel.load(bundle_of(world, tmp_path))
    assert again.card == world.card
    assert again.action_spec == world.action_spec
    mode = modes(family)[0]
    assert torch.equal(*(w.generate(past, actions, seeds=SEEDS, mode=mode) for w in (world, again)))


def test_a_world_without_actions(world_of, family, past) -> None:
    world = world_of(family, ActionSpec.null())
    assert world.generate(past, None, seeds=SEEDS, mode=modes(family)[1]).shape[2] == 13
    with pytest.raises(ConfigError, match="takes none"):
        world.generate(past, np.zeros((4, 13, 2), np.float32), seeds=SEEDS, mode=modes(family)[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "dream"}, "can do sample, "),
        ({"seeds": [1]}, "1 seeds for 4 sequences"),
        ({"num_frames": 5}, "nothing to predict"),
        ({"actions": np.zeros((4, 13, 2), np.float32)}, "3 components"),
        ({"actions": np.zeros((4, 12, 3), np.float32)}, r"wanted \[4, 13, 3\]"),
        ({"past": torch.zeros(4, 3, 5, 16, 12)}, r"wanted \[B, 3, P, 16, 16\]"),
        ({"past": torch.zeros(4, 3, 4, 16, 16)}, "4 frames"),
    ],
)
def test_what_does_not_fit_is_refused(world_of, family, past, actions, change, words) -> None:
    call = {"past": past, "actions": actions, "seeds": SEEDS, "mode": "sample", **change}
    with pytest.raises(ConfigError, match=words):
        world_of(family).generate(call.pop("past"), call.pop("actions"), **call)


def test_one_frame_is_no_past_for_a_model_that_is_shown_motion(world_of, family, past, actions) -> None:
    # Before: ValueError of the optical flow, after the past had been encoded.
    plain = world_of(family)
    config = plain.model_card.config.override(["extrapolate=true"])
    network = {"diffusion": Denoiser, "autoregressive": AutoregressiveTransformer}[family](config)
    note = ModelCard(family, config, plain.action_spec)
    with pytest.raises(ConfigError, match="past_frames is 1; this model is shown"):
        WorldModel(plain.tokenizer, network, note, plain.card.model_copy(update={"past_frames": 1}))
    world = WorldModel(plain.tokenizer, network, note, plain.card)
    with pytest.raises(ConfigError, match="past_frames is 1; this model is shown"):
        world.generate(past[:, :, :1], actions, seeds=SEEDS, mode="sample")
    assert plain.generate(past[:, :, :1], actions, seeds=SEEDS, mode="sample").shape[2] == 13
    note = ModelCard(family, config, plain.action_spec, extra={"extrapolate_from": 9})
    with pytest.raises(ConfigError, match="trained to be shown what follows 9 frames, and is asked with 5"):
        WorldModel(plain.tokenizer, network, note, plain.card)
    note = ModelCard(family, config, plain.action_spec, extra={"extrapolate_from": 5})
    world = WorldModel(plain.tokenizer, network, note, plain.card)
    with pytest.raises(ConfigError, match="what follows 5 frames, and is asked with 9"):
        world.generate(past.repeat(1, 1, 2, 1, 1)[:, :, :9], actions, seeds=SEEDS, mode="sample")


@pytest.mark.parametrize("where", ["model", "tokenizer"])
def test_a_result_that_is_no_number_is_refused(world_of, family, past, actions, where) -> None:
    # Before: given out; infinity of the decoder was clamped to white.
    world = world_of(family)
    part = world.model if where == "model" else world.tokenizer.decoder
    first, *_, last = part.parameters()
    (first if where == "model" else last).data.fill_(float("nan") if where == "model" else float("inf"))
    with pytest.raises(DataError, match="not finite"):
        world.generate(past, actions, seeds=SEEDS, mode="sample")
    spoiled = past.clone()
    spoiled[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="the past: 1 of"):
        world_of(family).generate(spoiled, actions, seeds=SEEDS, mode="sample")
    wrong = actions.copy()
    wrong[2, 4, 1] = float("nan")
    with pytest.raises(ConfigError, match="camera_elevation_rate is nan in row 4"):
        world_of(family).generate(past, wrong, seeds=SEEDS, mode="sample")


def test_what_was_trained_on_is_known_from_the_model(world_of, family, past, actions, caplog) -> None:
    world = world_of(family)
    far = np.zeros_like(actions)
    far[..., 0] = 80.0
    for _ in range(2):
        world.generate(past, far, seeds=SEEDS, mode="sample")
    assert not [record for record in caplog.records if record.name.startswith("wfm.generation")]
    world.model_card.extra["action_range"] = {"low": [-20.0, -1.0, 0.0], "high": [20.0, 1.0, 1.0]}
    for _ in range(2):
        world.generate(past, far, seeds=SEEDS, mode="sample")
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("wfm.generation")]
    assert "'camera_orbit_rate' is 80 deg/s in row 0; the model was trained on -20 to 20 deg/s" in said


def test_broken_bundles_are_refused(world_of, bundle_of, tmp_path) -> None:
    with pytest.raises(DataError, match=r"no card.json"):
        WorldModel.load(tmp_path)
    folder = bundle_of(world_of("diffusion"), tmp_path)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "schema_version": 99}))
    with pytest.raises(DataError, match="newer wfm"):
        WorldModel.load(folder)
    other = {**card, "family": "autoregressive", "sampling": {"batch_size": 3}}
    (folder / "card.json").write_text(json.dumps(other))
    with pytest.raises(ConfigError, match="not one bundle"):
        WorldModel.load(folder)
    (folder / "card.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        WorldModel.load(folder)


def test_a_card_of_before_families_had_samplings_of_their_own_is_read(world_of, bundle_of, family, tmp_path) -> None:
    folder = bundle_of(world_of(family), tmp_path)
    path = folder / "card.json"
    card = json.loads(path.read_text())
    every = {"batch_size": 3, "steps": 4, "sigma_max": 80.0, "top_p": 0.7, "temperature": 1.0}
    guidance = {"scale": 3.0, "convention": "standard", "drop": ["text", "actions"]}
    path.write_text(json.dumps({**card, "schema_version": 1, "sampling": {**every, "guidance": guidance}}))
    sampling = WorldModel.load(folder).card.sampling.resolved()
    assert sampling["batch_size"] == 3
    assert sampling.get("guidance", {}).get("drop") == (["text", "action"] if family == "diffusion" else None)
    for wrong in ([], {"guidance": 3}, {"guidance": {"drop": "text"}}):
        path.write_text(json.dumps({**card, "schema_version": 1, "sampling": wrong}))
        with pytest.raises(DataError, match="sampling must be a JSON object"):
            WorldModel.load(folder)
