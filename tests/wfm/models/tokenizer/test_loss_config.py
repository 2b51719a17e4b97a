"""Weights over time, and Cosmos's stages as they are in its released code."""

import pytest

from wfm.errors import ConfigError
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.models.tokenizer.loss_config import (
    AdversarialConfig,
    ReconstructionConfig,
    TermWeight,
    cosmos_schedule,
    cosmos_stage1,
    cosmos_stage2,
)


def test_a_weight_changes_at_its_step_and_not_before():
    weight = TermWeight(before=0.1, after=0.073, start=500_000)
    assert [weight.at(step) for step in (0, 499_999, 500_000, 10**9)] == [0.1, 0.1, 0.073, 0.073]
    assert TermWeight(after=2.0).at(0) == 2.0


@pytest.mark.parametrize(("values", "ever"), [({}, False), ({"after": 1}, True), ({"before": 1, "start": 5}, True),
                                              ({"before": 1}, False), ({"after": 1, "start": 9}, True)])  # fmt: skip
def test_ever(values, ever):
    assert TermWeight(**values).ever is ever
    assert any(TermWeight(**values).at(step) > 0 for step in range(20)) is ever


def test_cosmos_schedule_at_its_boundaries():
    config = cosmos_schedule("vgg16.safetensors")
    steps = (0, 249_999, 250_000, 499_999, 500_000)
    assert [config.perceptual.at(s) for s in steps] == [0.1, 0.1, 0.1, 0.1, 0.073]
    assert [config.flow.at(s) for s in steps] == [0, 0, 0.01, 0.01, 0.01]
    assert [config.gram.at(s) for s in steps] == [0, 0, 0, 0, 0.062]
    assert config.error == "l1"
    assert not config.adversarial.weight.ever


def test_cosmos_stages():
    one, two = cosmos_stage1("f"), cosmos_stage2("f", "vgg19")
    assert (one.error, one.perceptual.at(0), one.gram.ever, one.flow.ever, one.feature_net) == (
        "l1", 0.1, False, False, "vgg16",
    )  # fmt: skip
    assert (two.perceptual.at(0), two.gram.at(0), two.flow.at(0), two.feature_net) == (0.073, 0.062, 0.01, "vgg19")
    assert two.adversarial.weight.at(0) > 0


def test_a_stage_by_its_name_and_with_changes():
    assert ReconstructionConfig.parse("cosmos_stage2") == cosmos_stage2()
    changed = ReconstructionConfig.parse({"preset": "cosmos_stage1", "feature_net": "offline-gabor"})
    assert changed == cosmos_stage1(feature_net="offline-gabor")
    training = TokenizerTrainingConfig().override(["loss=cosmos_schedule"])
    assert training.loss == cosmos_schedule()
    assert TokenizerTrainingConfig.parse(training.resolved()) == training
    with pytest.raises(ConfigError, match=r"cosmos_stage3.*choose from cosmos_stage1, cosmos_stage2, cosmos_schedule"):
        ReconstructionConfig.parse("cosmos_stage3")


def test_the_default_is_the_squared_error_alone():
    config = ReconstructionConfig()
    assert config.error == "l2"
    terms = (config.perceptual, config.gram, config.flow, config.adversarial.weight)
    assert not any(term.ever for term in terms)
    assert not config.needs_file


def test_the_discriminator_may_learn_ahead():
    weight = {"after": 0.1, "start": 100}
    assert AdversarialConfig.parse({"weight": weight, "lead_steps": 30}).first_step == 70
    assert AdversarialConfig.parse({"weight": weight, "lead_steps": 300}).first_step == 0
    assert AdversarialConfig.parse({"weight": {**weight, "before": 0.1}}).first_step == 0


@pytest.mark.parametrize("values", [{"gram": {"after": -1}}, {"layer_weights": [1, 2]}, {"flow_scale": 0},
                                    {"feature_net": "lpips"}, {"adversarial": {"levels": 0}},
                                    {"adversarial": {"r1": -1}}, {"flow": {"start": -1}}])  # fmt: skip
def test_nonsense_is_refused(values):
    with pytest.raises(ConfigError):
        ReconstructionConfig.parse(values)


def test_a_file_that_no_net_reads_is_refused():
    with pytest.raises(ConfigError, match="reads no file: use vgg16 or vgg19"):
        ReconstructionConfig.parse({"feature_file": "vgg16.safetensors"})
