"""Recipes: every value they give is a field of the component it is for, and they import no torch."""

import importlib
import subprocess
import sys

import pytest

from pipelines.dags.decoder import decoder
from pipelines.dags.promotion import Promotion
from pipelines.dags.world_model import world_model


@pytest.mark.parametrize("profile", ["demo", "smoke"])
def test_settings_parse_for_every_node(profile):
    settings = importlib.import_module(f"wfm.recipes.{profile}").settings()
    nodes = {node.name: node for graph in (world_model, decoder) for node in graph(settings, "", Promotion()).nodes}
    assert set(settings) - {"promotion"} <= set(nodes)
    for name, node in nodes.items():
        if name in settings:
            importlib.import_module(f"components.{node.stage}").CONFIG.parse(node.settings)


@pytest.mark.parametrize("profile", ["demo", "smoke"])
def test_tokens_and_windows_fit_each_other(profile):
    settings = importlib.import_module(f"wfm.recipes.{profile}").settings()
    assert settings["train_diffusion"]["family"] == "diffusion"
    assert settings["train_autoregressive"]["family"] == "autoregressive"
    model = settings["train_tokenizer_discrete"]["model"]
    assert len(model["levels"]) == model["latent_channels"]
    assert not settings["train_tokenizer_continuous"]["model"].get("levels")


def test_recipes_and_training_components_load_no_torch():
    code = (
        "import sys, wfm.recipes.demo, wfm.recipes.smoke, components.train_tokenizer, components.encode_latents, "
        "components.train_world_model; print([m for m in ('torch', 'dask', 'av', 'mujoco') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
