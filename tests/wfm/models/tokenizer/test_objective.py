"""The reconstruction loss: each term is what it claims to be, pulls at the decoder, and counts when it should."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wfm.errors import ConfigError
from wfm.models.tokenizer import TokenizerObjective
from wfm.models.tokenizer.discriminator import accuracy, discriminator_loss, r1_penalty
from wfm.models.tokenizer.loss_config import ReconstructionConfig, TermWeight
from wfm.models.tokenizer.perceptual import Vgg

ALL = {
    "error": "l1",
    "perceptual": {"after": 0.1},
    "gram": {"after": 0.062},
    "flow": {"after": 0.01},
    "adversarial": {"weight": {"after": 0.1}, "channels": 8, "levels": 2},
}
TERMS = ("pixel", "perceptual", "gram", "flow", "adversarial")


class Shifted(nn.Module):
    """A "tokenizer" whose reconstruction is off by a constant."""

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return video + 0.5


class Coder(nn.Module):
    """A small autoencoder: one number for each 2x2x2 block."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv3d(3, 4, 3, stride=(1, 2, 2), padding=1)
        self.decoder = nn.ConvTranspose3d(4, 3, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.decoder(torch.tanh(self.encoder(video))))


VIDEO = {"video": torch.zeros(1, 3, 5, 8, 8)}


def moving(frames: int = 5, videos: int = 2, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    still = nn.functional.interpolate(torch.randn(videos, 3, size // 2, size // 2, generator=generator), scale_factor=2)
    return torch.stack([still.roll(k, -1) for k in range(frames)], dim=2).clamp(-1, 1)


def objective(**values) -> TokenizerObjective:
    torch.manual_seed(0)
    return TokenizerObjective(ReconstructionConfig.parse(values))


def coder() -> Coder:
    torch.manual_seed(1)
    return Coder()


def loss(**values) -> float:
    return float(objective(**values).loss(Shifted(), VIDEO, 0)[0])


def test_errors():
    assert loss(error="l2") == 0.25
    assert loss(error="l1") == 0.5


def test_gradient_weight_sees_edges_only():
    assert loss(gradient_weight=1.0) == loss()  # a constant shift has no edges

    class Edge(nn.Module):
        def forward(self, video):
            out = video.clone()
            out[..., 0] += 1
            return out

    plain, sharp = (float(objective(gradient_weight=w).loss(Edge(), VIDEO, 0)[0]) for w in (0.0, 1.0))
    assert sharp > plain


def test_psnr_is_on_the_unit_range_and_alone_by_default():
    values = objective().loss(Shifted(), VIDEO, 0)[1]
    assert set(values) == {"psnr"}
    assert abs(values["psnr"] - 12.0412) < 1e-3  # an error of 0.25 on [0, 1]


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("error", ["l1", "l2"])
def test_every_term_pulls_at_the_decoder(name, error):
    model, video = coder(), moving()
    term = objective(**{**ALL, "error": error}).terms(model(video), video, 0)[name]
    term.value.backward()
    for parameters in (model.decoder, model.encoder):
        gradients = torch.cat([p.grad.flatten() for p in parameters.parameters()])
        assert torch.isfinite(gradients).all()
        assert gradients.norm() > 1e-6


@pytest.mark.parametrize("feature_net", ["offline-gabor", "vgg16"])
def test_the_loss_is_the_weighted_sum_of_its_terms_in_fp64(tmp_path, feature_net):
    """Every term against its plain formula on the same reconstruction; the features are the net's own."""
    file = tmp_path / "vgg16.safetensors"
    if feature_net == "vgg16":
        torch.manual_seed(2)
        shapes = {name: tensor.shape for name, tensor in Vgg("vgg16").state_dict().items()}
        save_file({name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}, file)
    made = objective(**ALL, feature_net=feature_net, feature_file=str(file) if file.exists() else "")
    model, video = coder().double(), moving().double()
    for net in (made.features, made.flow, made.discriminator):
        net.double()
    rebuilt = model(video).detach()
    total, values = made.loss(model, {"video": video}, 0)
    total = total.detach()

    frames = [v.transpose(1, 2).reshape(-1, *v.shape[1:2], *v.shape[3:]) for v in (rebuilt, video)]
    maps = [made.features(f) for f in frames]
    weights = made.features.layer_weights
    grams = [[torch.einsum("btchw,btdhw->bcd", m, m) / m[0, :, 0].numel()
              for m in (layer.reshape(2, 5, *layer.shape[1:]) for layer in one)] for one in maps]  # fmt: skip
    flows = []
    for v in (rebuilt, video):
        small = v.reshape(2, 3, 5, 8, 2, 8, 2).mean((4, 6))
        pairs = [(t, t + 1) for t in range(4)] + [(t + 1, t) for t in range(4)]
        flows.append(torch.stack([2 * made.flow(small[:, :, a], small[:, :, b]) for a, b in pairs]))
    expected = {
        "pixel": (rebuilt - video).abs().mean(),
        "perceptual": sum(w * (a - b).abs().mean() for w, a, b in zip(weights, *maps, strict=True)),
        "gram": sum(w * ((a - b) ** 2).mean() for w, a, b in zip(weights, *grams, strict=True)),
        "flow": (flows[0] - flows[1]).abs().mean(),
        "adversarial": -made.discriminator(rebuilt).detach().mean(),
    }
    for name, value in expected.items():
        assert values[name] == pytest.approx(float(value), rel=1e-9), name
    by_hand = sum(w * float(expected[n]) for n, w in zip(TERMS, (1, 0.1, 0.062, 0.01, 0.1), strict=True))
    assert float(total) == pytest.approx(by_hand, rel=1e-12)


def test_a_term_counts_from_its_step_on():
    made = objective(flow={"after": 0.01, "start": 250}, perceptual={"before": 0.1, "after": 0.073, "start": 500},
                     gram={"after": 0.062, "start": 500})  # fmt: skip
    rebuilt, video = coder()(moving()), moving()

    def weights(step: int) -> dict[str, float]:
        return {name: term.weight for name, term in made.terms(rebuilt, video, step).items()}

    early = {"pixel": 1.0, "perceptual": 0.1}
    assert weights(0) == weights(249) == early
    assert weights(250) == weights(499) == {**early, "flow": 0.01}
    assert weights(500) == {"pixel": 1.0, "perceptual": 0.073, "gram": 0.062, "flow": 0.01}


def test_images_have_every_term_but_flow():
    video = moving(frames=1, videos=3)
    model = coder()
    total, values = objective(**ALL).loss(model, {"video": video}, 0)
    total.backward()
    assert set(values) == {"psnr", *TERMS} - {"flow"}
    assert model.decoder.weight.grad.norm() > 0


def test_computing_features_again_gives_the_same_gradient():
    gradients = []
    for again in (False, True):
        model, video = coder(), moving()
        objective(**ALL, checkpoint_features=again).loss(model, {"video": video}, 0)[0].backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_tokenizers_loss_leaves_no_gradient_in_the_discriminator():
    made = objective(**ALL)
    made.loss(coder(), {"video": moving()}, 0)[0].backward()
    assert all(p.grad is None and p.requires_grad for p in made.discriminator.parameters())


def test_the_balanced_weight_makes_both_pulls_equal():
    """The gradient is that of the sum written out, and the verdict pulls as hard as the rest."""
    adversarial = {**ALL["adversarial"], "adaptive": True}
    made, video = objective(**{**ALL, "adversarial": adversarial}), moving()
    model = coder()
    total, values = made.loss(model, {"video": video}, 0)
    total.backward()

    plain = coder()
    rebuilt = plain(video)
    terms = made.terms(rebuilt, video, 0)
    rest = sum(terms[name].weight * terms[name].value for name in TERMS[:-1])
    verdict = terms["adversarial"].value
    (pull,) = torch.autograd.grad(rest, rebuilt, retain_graph=True)
    (push,) = torch.autograd.grad(verdict, rebuilt, retain_graph=True)
    factor = float(pull.norm() / push.norm())
    assert values["adversarial_factor"] == pytest.approx(factor, rel=1e-5)
    expected = rest + 0.1 * factor * verdict
    expected.backward()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-7)
    with torch.no_grad():  # a validation needs no gradient
        assert math.isfinite(float(made.loss(model, {"video": video}, 0)[0]))


def test_the_balanced_weight_has_a_limit():
    adversarial = {**ALL["adversarial"], "adaptive": True, "adaptive_limit": 1e-3}
    made = objective(adversarial=adversarial)
    assert made.loss(coder(), {"video": moving()}, 0)[1]["adversarial_factor"] == pytest.approx(1e-3)


def test_the_discriminators_loss_is_its_formula():
    adversarial = {**ALL["adversarial"], "r1": 2.0, "r1_every": 4}
    made, model, video = objective(adversarial=adversarial), coder(), moving()
    assert made.rival_loss(0) is None  # nothing seen yet
    made.loss(model, {"video": video}, 4)
    total, values = made.rival_loss(4)
    real, false = made.discriminator(video), made.discriminator(model(video).detach())
    penalty = r1_penalty(made.discriminator, video)
    assert values["discriminator_loss"] == pytest.approx(float(discriminator_loss(real, false).detach()), rel=1e-5)
    assert values["discriminator_accuracy"] == pytest.approx(accuracy(real, false))
    expected = discriminator_loss(real, false) + 2.0 * 4 * penalty
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    total.backward()
    assert all(p.grad is None for p in model.parameters())
    assert "discriminator_r1" not in made.rival_loss(5)[1]


def test_the_discriminator_learns_from_its_first_step_on():
    weight = {"after": 0.1, "start": 10}
    made = objective(adversarial={**ALL["adversarial"], "weight": weight, "lead_steps": 3})
    for step, learns, counts in ((6, False, False), (7, True, False), (9, True, False), (10, True, True)):
        values = made.loss(coder(), {"video": moving()}, step)[1]
        assert (made.rival_loss(step) is not None, "adversarial" in values) == (learns, counts), step


def test_what_is_not_needed_is_not_made():
    made = objective(perceptual=TermWeight(before=1.0))  # start 0: `before` never holds
    assert made.features is made.flow is made.discriminator is None
    with pytest.raises(ConfigError, match="feature_file"):
        objective(perceptual={"after": 1}, feature_net="vgg19")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("adaptive", [False, True])
def test_every_term_counts_in_mixed_and_in_half_precision(dtype, adaptive):
    """Before: Gram matrices were infinite in fp16 (NaN for the loss), and a tokenizer in half precision met the nets' fp32
    ("Input type (BFloat16) and bias type (float) should be the same")."""
    rival = {**ALL["adversarial"], "adaptive": adaptive, "r1": 1.0, "r1_every": 1}
    batch = {"video": 4 * moving(size=32)}  # strong features
    values = {}
    for how in ("full", "mixed", "half"):
        judge, model = objective(**{**ALL, "adversarial": rival}), coder()
        given = batch
        if how == "half":
            model, given = model.to(dtype), {"video": batch["video"].to(dtype)}
        with torch.autocast("cpu", dtype=dtype, enabled=how == "mixed"):
            total, values[how] = judge.loss(model, given, 0)
            turn = judge.rival_loss(0)
        (total + turn[0]).backward()
        assert total.isfinite()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert all(p.grad.isfinite().all() for p in judge.discriminator.parameters())
        values[how] |= {name: float(value) for name, value in turn[1].items()}
    for name, value in values["full"].items():
        for how in ("mixed", "half"):
            assert values[how][name] == pytest.approx(value, rel=0.05, abs=0.02), name  # measured worst 0.005
