"""What the training stages decide before the loop: which windows, which network, which units."""

import dataclasses

import pytest
import torch

from tests.wfm.training.in_memory import with_conditions
from wfm.actions import ActionSpec
from wfm.conditions.action import Action
from wfm.data.captions import CaptionTable
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.data.passes import stoppable
from wfm.errors import Cancelled, ConfigError, DataError
from wfm.families.diffusion.card import DiffusionTrainingConfig
from wfm.families.diffusion.fit import whitened
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.families.tokenizer.fit import reconstruction_psnr
from wfm.models.family import FAMILIES
from wfm.models.folder import save_model
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.pulse import sign
from wfm.training.config import TrainingConfig, WorldTrainingConfig
from wfm.training.encoded import Encoded
from wfm.training.fit import fit
from wfm.training.fit_world_model import build, go_on, validation
from wfm.training.held_out import held_out
from wfm.training.loop import train

SPEC = ActionSpec(names=("turn",), units=("deg/s",), frame="f", mean=(0.0,), scale=(30.0,))
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
SMALL = {
    "diffusion": {
        "network": {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 1,
            "adaln_lora_dim": 4,
            "condition_mask": True,
            "zero_output": True,
        },
        "linear_prior": True,
    },
    "validation_windows": 3,
}


def changed(**denoiser) -> DiffusionTrainingConfig:
    return DiffusionTrainingConfig.parse({**SMALL, "diffusion": {**SMALL["diffusion"], **denoiser}})


def samples(count: int = 6) -> ArrayDataset:
    generator = torch.Generator().manual_seed(0)
    arrays = {
        "latents": torch.randn(count, 3, 3, 2, 2, generator=generator) * 2,
        "actions": torch.full((count, 9, 1), 60.0),
        "has_actions": torch.ones(count, dtype=torch.bool),
    }
    return ArrayDataset(tuple(f"s{i}" for i in range(count)), arrays)


def with_actions(found: ArrayDataset, spec: ActionSpec) -> ArrayDataset:
    return with_conditions(found, [Action(spec=spec)], {"actions": spec.resolved()}, 24.0)


def encoded() -> Encoded:
    statistics = {"mean": [[0.5, 0.25]] * 3, "std": [[2.0, 1.0]] * 3}
    own = {"action": Action(spec=SPEC)}
    train, val = ({"latents": with_actions(samples(count), SPEC)} for count in (6, 4))
    return Encoded(train, val, statistics, SPEC, 24.0, own=own)


def test_reconstruction_psnr_of_a_perfect_code():
    class Perfect(torch.nn.Module):
        def forward(self, video):
            return video + 0.02  # half the distance is 0.01 on the unit range: 40 dB

    frames = torch.full((2, 5, 8, 8, 3), 100, dtype=torch.uint8)
    assert reconstruction_psnr(Perfect(), [frames]) == pytest.approx(40, abs=0.01)


def test_what_follows_from_the_data_is_filled_in():
    network, _, card = build(DiffusionTrainingConfig.parse(SMALL), TokenizerConfig.parse(NETWORK), encoded())
    assert (card.action_width, card.temporal_compression, card.fps, card.statistics_frames) == (1, 4, 24.0, 2)
    filled = network.network.config
    assert (filled.in_channels, filled.text_embed_dim, filled.action_dim, filled.extra_channels) == (3, 0, 11, 0)
    assert filled.channels["given"] == 1
    assert not filled.concat_padding_mask
    assert network.statistics.std.tolist() == [[2.0, 1.0]] * 3
    assert network.prior.weight.abs().max() > 0
    plain, _, _ = build(changed(linear_prior=False), TokenizerConfig.parse(NETWORK), encoded())
    assert plain.prior is None


def test_a_stated_field_that_the_data_decide_otherwise_is_refused():
    told = changed(network={**SMALL["diffusion"]["network"], "in_channels": 8})
    with pytest.raises(ConfigError, match=r"diffusion\.network\.in_channels is 8 .* make it 3: leave it out"):
        build(told, TokenizerConfig.parse(NETWORK), encoded())


def test_several_frame_rates_need_a_model_that_is_told_them():
    data = encoded()
    rates = torch.tensor([10.0, 20.0] * 3)
    held = data.train["latents"]
    train = dataclasses.replace(held, arrays={**held.arrays, "fps": rates})
    mixed = dataclasses.replace(data, train={"latents": train}, rates=(10.0, 20.0))
    for config in (
        DiffusionTrainingConfig.parse(SMALL),
        changed(fps_positions=True),
    ):  # one with actions given as rates
        with pytest.raises(DataError, match="mix frame rates, 10 to 20 a second"):
            build(config, TokenizerConfig.parse(NETWORK), mixed)
    arrays = {name: array for name, array in train.arrays.items() if "action" not in name}
    mixed = dataclasses.replace(
        mixed,
        train={"latents": dataclasses.replace(train, arrays=arrays)},
        action_spec=ActionSpec.null(),
        own={"action": Action()},
    )
    model, objective, _ = build(changed(fps_positions=True), TokenizerConfig.parse(NETWORK), mixed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    batch = {**mixed.train["latents"].rows([0, 1]), "seeds": torch.tensor([1, 2])}
    other = {**batch, "fps": torch.tensor([10.0, 40.0])}
    with torch.no_grad():
        assert not torch.equal(*(objective.loss(model, each, 0)[0] for each in (batch, other)))


def test_captions_make_a_model_that_reads_text():
    data = encoded()
    table = CaptionTable(torch.randn(3, 7), torch.tensor([1, 2]), torch.tensor([0, 1, 0, 1, 0, 1]))
    captioned = dataclasses.replace(data.train["latents"], captions=table)
    told = dataclasses.replace(data, train={"latents": captioned}, text_width=7)
    network, objective, card = build(DiffusionTrainingConfig.parse(SMALL), TokenizerConfig.parse(NETWORK), told)
    assert card.network.text_embed_dim == 7
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    batch = {**captioned.rows([0, 1]), "seeds": torch.tensor([1, 2])}
    other = {**batch, "text": batch["text"] + 1}
    with torch.no_grad():
        assert not torch.equal(*(objective.loss(network, each, 0)[0] for each in (batch, other)))


@pytest.mark.parametrize("objective", ["edm", "flow"])
def test_both_objectives_train_in_the_loop(objective, tmp_path):
    """A world that stands still and fades, on real batches: the loss of the trained model falls well below the start's."""
    config = DiffusionTrainingConfig.parse(
        {
            **SMALL,
            "diffusion": {**SMALL["diffusion"], "objective": objective, "repeat_last": True, "linear_prior": False},
            objective: {"condition_latents": [1], "pure_noise_probability": 0.5},
            "training": {"steps": 100, "batch_size": 6, "learning_rate": 0.01, "warmup_steps": 5, "validate_every": 0},
        }
    )
    first = torch.randn(24, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    still = torch.cat([first, 0.8 * first, 0.6 * first], dim=2)
    arrays = {"latents": still, "actions": torch.zeros(24, 9, 1), "has_actions": torch.ones(24, dtype=torch.bool)}
    train_split = ArrayDataset(tuple(f"s{i}" for i in range(24)), arrays)
    data = dataclasses.replace(
        encoded(), train={"latents": train_split}, statistics={"mean": [[0.0]] * 3, "std": [[0.8]] * 3}
    )
    torch.manual_seed(0)
    model, loss, _ = build(config, TokenizerConfig.parse(NETWORK), data)
    batch = {**train_split.rows(range(24)), "seeds": torch.arange(1000, 1024)}
    with torch.no_grad():
        before = float(loss.loss(model, batch, 0)[0])
    loader = Loader(train_split, one_shape(train_split.sample_ids, 6, 0))
    result = train(model, loss, loader, config.training, scratch=tmp_path)
    assert result.steps == 100
    with torch.no_grad():
        assert float(loss.loss(model, batch, 0)[0]) < 0.5 * before


@pytest.mark.parametrize(("family", "levels"), [("diffusion", [4, 3, 3]), ("autoregressive", [])])
def test_a_family_needs_its_kind_of_tokenizer(family, levels):
    with pytest.raises(ConfigError, match="tokenizer"):
        build(
            WorldTrainingConfig.parse({"family": family}),
            TokenizerConfig.parse({**NETWORK, "levels": levels}),
            encoded(),
        )


def test_actions_are_normalised_or_absent():
    assert torch.equal(with_actions(samples(), SPEC).arrays["actions"], torch.full((6, 9, 1), 2.0))
    bare = ArrayDataset(
        ("a",), {"latents": torch.zeros(1), "actions": torch.zeros(1, 9, 0), "has_actions": torch.zeros(1)}
    )
    assert with_actions(bare, ActionSpec.null()).arrays["actions"].shape == (1, 9, 0), "no model reads them"


def test_whitening_goes_between_own_and_common_deviation():
    std = torch.tensor([[3.0, 1.0], [4.0, 7.0]])
    assert torch.equal(whitened(std, 1.0), std)
    assert torch.allclose(whitened(std, 0.0), torch.tensor([[12.5, 25.0]]).sqrt().expand(2, 2))


def test_a_stop_reaches_the_pass_of_the_prior_and_of_what_is_watched():
    with stoppable(lambda: True), pytest.raises(Cancelled, match="during a pass"):
        build(DiffusionTrainingConfig.parse(SMALL), TokenizerConfig.parse(NETWORK), encoded())
    with stoppable(lambda: True), pytest.raises(Cancelled, match="during a pass"):
        held_out(encoded().val.values(), 3, TrainingConfig())
    assert hasattr(fit, "__wrapped__"), "by @stops_passes"


def test_validation_is_repeatable_and_sees_the_model():
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig.parse(NETWORK)).eval()
    config = DiffusionTrainingConfig.parse(SMALL)
    network, objective, _ = build(config, tokenizer.config, encoded())
    watch = validation(objective, tokenizer, encoded().val, config)
    assert watch is not None
    with torch.no_grad():
        before = sign().count
        first = watch(network)
        assert sign().count >= before + 3, "each part of it shows that it gets on"
        assert watch(network) == first
        assert {"loss", "mse", "mean_psnr"} == set(first)
        torch.nn.init.normal_(network.network.proj_out.weight)
        assert watch(network)["loss"] != first["loss"]
    assert validation(objective, tokenizer, {}, config) is None


@pytest.mark.parametrize("values", [{"num_frames": 10}, {"crop_frames": 41}, {"crop_frames": 1}, {"size": [60, 64]}])
def test_tokenizer_training_refuses_what_does_not_fit(values):
    with pytest.raises(ConfigError):
        TokenizerTrainingConfig.parse(values)


def test_activation_checkpointing_changes_no_result():
    losses = []
    for kind in ("none", "full"):
        torch.manual_seed(0)
        config = DiffusionTrainingConfig.parse({**SMALL, "parallel": {"activation_checkpointing": kind}})
        model, objective, _ = build(config, TokenizerConfig.parse(NETWORK), encoded())
        assert ("forward" in model.network.blocks[0].__dict__) == (kind == "full")  # it is switched on
        batch = {**encoded().train["latents"].rows([0, 1]), "seeds": torch.arange(2)}
        loss, _ = objective.loss(model, batch, 0)
        loss.backward()
        losses.append([float(loss.detach()), *(float(p.grad.sum()) for p in model.parameters() if p.grad is not None)])
    assert losses[0] == losses[1]


RASTER = {
    "levels": [5, 5, 5], "dim": 24, "layers": 3, "heads": 2, "kv_heads": 1, "head_dim": 12, "ffn_dim": 32,
    "action_hidden": 8,
}  # fmt: skip
DISCRETE = TokenizerConfig.parse({**NETWORK, "levels": [5, 5, 5]})


def test_medusa_heads_are_trained_on_a_model_that_is_there(tmp_path):
    """Only they, the last layers and the output learn; the rest stays as it was, bit for bit."""
    config = {"family": "autoregressive", "autoregressive": RASTER, "parallel": {"activation_checkpointing": "full"}}
    data = dataclasses.replace(encoded(), train={"latents": tokens_of(encoded().train["latents"])})
    first, _, card = build(WorldTrainingConfig.parse(config), DISCRETE, data)
    save_model(first, card, tmp_path)
    later = WorldTrainingConfig.parse(
        {**config, "autoregressive": {**RASTER, "medusa_heads": 2}, "initial": str(tmp_path), "unfrozen_layers": 1}
    )
    model, objective, card = build(later, DISCRETE, data)
    go_on(model, card, later)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in first.state_dict().items())
    loader = Loader(data.train["latents"], one_shape(data.train["latents"].sample_ids, 2, 0))
    train(model, objective, loader, TrainingConfig(steps=2, batch_size=2, warmup_steps=0), scratch=tmp_path / "s")
    changed_parts = {
        ".".join(name.split(".")[:2]) for name, tensor in model.state_dict().items()
        if name not in first.state_dict() or not torch.equal(tensor, first.state_dict()[name])
    }  # fmt: skip
    assert changed_parts == {"medusa.merged", "layers.2", "norm.weight", "output.weight"}


def test_shapes_that_a_network_cannot_take_are_refused_by_name():
    shapes = [(1, 2, 2), (3, 2, 2), (3, 4, 2)]
    config = DiffusionTrainingConfig.parse(SMALL)
    model, objective, _ = build(config, TokenizerConfig.parse(NETWORK), encoded())
    FAMILIES.load("diffusion").fitting().require_shapes(model, config, shapes)
    for shape in shapes:
        batch = {"latents": torch.randn(2, 3, *shape), "seeds": torch.arange(2)}
        batch |= {"actions": torch.zeros(2, 1 + 4 * (shape[0] - 1), 1), "has_actions": torch.tensor([True, False])}
        assert torch.isfinite(objective.loss(model, batch, 0)[0])
    with pytest.raises(ConfigError, match="cannot be cut into patches"):
        FAMILIES.load("diffusion").fitting().require_shapes(model, config, [(3, 3, 2)])
    raster = WorldTrainingConfig.parse({"family": "autoregressive", "autoregressive": RASTER})
    fitting = FAMILIES.load("autoregressive").fitting()
    network = FAMILIES.load("autoregressive").network_class()
    fitting.require_shapes(network(raster.autoregressive), raster, shapes)
    small = network(raster.autoregressive.model_copy(update={"context_positions": 4}))
    with pytest.raises(ConfigError, match="more than this model's context of 4"):
        fitting.require_shapes(small, raster, shapes)


def test_going_on_from_another_network_is_refused(tmp_path):
    model, _, card = build(DiffusionTrainingConfig.parse(SMALL), TokenizerConfig.parse(NETWORK), encoded())
    save_model(model, card, tmp_path)
    other = DiffusionTrainingConfig.parse({**changed(linear_prior=False).resolved(), "initial": str(tmp_path)})
    changed_model, _, changed_card = build(other, TokenizerConfig.parse(NETWORK), encoded())
    with pytest.raises(ConfigError, match=r"is another network.*linear_prior: True, here False"):
        go_on(changed_model, changed_card, other)
    with pytest.raises(ConfigError, match="unfrozen_layers is 2, the network has 1 blocks"):
        go_on(model, card, DiffusionTrainingConfig.parse({**SMALL, "unfrozen_layers": 2}))


def tokens_of(samples: ArrayDataset) -> ArrayDataset:
    """The same samples as tokens of a vocabulary of 125."""
    arrays = {name: array for name, array in samples.arrays.items() if name != "latents"}
    tokens = torch.randint(0, 125, (len(samples), 3, 2, 2), generator=torch.Generator().manual_seed(0))
    return ArrayDataset(samples.sample_ids, {**arrays, "tokens": tokens})
