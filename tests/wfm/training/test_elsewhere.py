"""Trainings with validation on a device that is not the CPU's (a stand-in: `elsewhere`): whatever is watched goes where the
model is, and what comes of it is what comes of it on the CPU."""

import pytest
import torch

from tests.wfm.training import test_packs_of_tokens as of_tokens
from tests.wfm.training.elsewhere import THERE, Elsewhere, Mixed, training_elsewhere
from tests.wfm.training.rank_runs import RUNS, worst
from tests.wfm.training.whole_fit import TOKENIZER, fit, make_latents, make_text
from wfm.artifacts import Store
from wfm.data.loader import ArrayDataset
from wfm.families.diffusion_decoder.card import DecoderTrainingConfig
from wfm.families.diffusion_decoder.fit import validation
from wfm.families.tokenizer.fit import reconstruction_psnr
from wfm.models.folder import load_tensors
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.parallel.ranks import ALONE

SHORT = {"steps": 2, "validate_every": 1, "warmup_steps": 0}
BOUND = 1e-10
"""In fp64: attention there is the reference, and nothing is fused; worst measured: see the tests."""


def test_the_stand_in_refuses_what_a_gpu_would():
    model, x = torch.nn.Linear(3, 3), torch.randn(2, 3)
    wanted = model(x).detach()
    with Elsewhere():
        model.to(THERE)
        made = model(x.to(THERE))
        assert made.device == THERE
        assert torch.equal(made.detach().cpu(), wanted)
        with pytest.raises(Mixed, match="on the CPU"):
            model(x)
        with pytest.raises(TypeError, match="CPU alone"):
            made.detach().numpy()


def test_a_diffusion_model_with_text_is_trained_and_watched_there(tmp_path, monkeypatch):
    store = Store.open(tmp_path / "store")
    make_latents(store)
    make_text(store)
    here = fit(store, tmp_path / "here", tmp_path / "scratch", text=True, training=SHORT)
    with training_elsewhere(monkeypatch):
        there = fit(store, tmp_path / "there", tmp_path / "other", text=True, training=SHORT)
    assert there["validation"] == pytest.approx(here["validation"], abs=BOUND)
    weights = [load_tensors(tmp_path / name / "model/model.safetensors") for name in ("here", "there")]
    assert worst(*weights) < BOUND


@pytest.mark.parametrize(("order", "shapes"), [("raster", of_tokens.SHAPES), ("frame", of_tokens.CLIPS)])
def test_an_autoregressive_model_is_trained_on_packs_and_watched_there(tmp_path, monkeypatch, order, shapes):
    store = Store.open(tmp_path / "store")
    of_tokens.make_tokens(store, shapes)
    options = {"loader": {"workers": 0}, **SHORT, "log_every": 1}
    here = of_tokens.fitted(store, tmp_path / "here", order, **options)
    with training_elsewhere(monkeypatch):
        there = of_tokens.fitted(store, tmp_path / "there", order, **options)
    assert len(here) == len(there) == 4
    for mine, theirs in zip(there, here, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)  # a curve is written with seven digits


def test_a_decoder_is_watched_there():
    made = RUNS["decoder"](ALONE)
    held = ArrayDataset(tuple(f"s{i}" for i in range(3)), {name: array[:3] for name, array in made.arrays.items()})
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig.parse(TOKENIZER)).double().eval()
    watch = validation(made.objective, tokenizer, [held], DecoderTrainingConfig.parse({"validation_windows": 3}))
    again = validation(made.objective, tokenizer, [held], DecoderTrainingConfig.parse({"validation_windows": 3}))
    with torch.no_grad():
        here = watch(made.model)
        with Elsewhere():
            there = again(made.model.to(THERE))
    assert there == pytest.approx(here, abs=BOUND)


def test_a_tokenizer_is_watched_there():
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig.parse(TOKENIZER)).eval()
    frames = [torch.randint(0, 255, (3, 5, 8, 8, 3), dtype=torch.uint8)]
    here = reconstruction_psnr(tokenizer, frames)
    with Elsewhere():
        there = reconstruction_psnr(tokenizer.to(THERE), frames)
    assert there == pytest.approx(here, abs=1e-5)
