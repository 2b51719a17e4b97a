"""Objects by name, and which of them a config names."""

from typing import Annotated

import pytest

from wfm.config import Config
from wfm.errors import ConfigError
from wfm.models.family import FAMILIES
from wfm.registry import Named, Registry, uses

SENSES = Registry("wfm.senses", "sense", {"depth": "wfm.config:Config", "touch": "wfm.config:Config"})


class Inner(Config):
    senses: Annotated[tuple[str, ...], Named(SENSES)] = ("touch", "depth")


class Outer(Config):
    family: Annotated[str, Named(FAMILIES, "fit")] = "diffusion"
    beside: Annotated[str, Named(FAMILIES, "card")] = ""
    inner: Inner = Inner()
    by_name: Annotated[dict[str, int], Named(SENSES, "x")] = {"depth": 1}
    free: str = "autoregressive"


def test_what_a_config_names_is_found_at_any_depth_and_sorted() -> None:
    assert [use.line for use in uses(Outer())] == [
        "wfm.families/diffusion/fit", "wfm.senses/depth", "wfm.senses/depth/x", "wfm.senses/touch",
    ]  # fmt: skip
    assert uses(Outer(inner=Inner(senses=()), by_name={}, family="")) == ()


def test_an_object_of_no_parts_begins_with_its_own_module() -> None:
    assert SENSES.modules("depth") == ("wfm.config",)
    assert (SENSES.parts_of("depth"), SENSES.version("depth")) == (("",), 1)


def test_an_unknown_name_is_told_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"unknown sense 'smell'\. Choices: depth, touch"):
        SENSES.load("smell")
    assert "smell" not in SENSES
    assert "depth" in SENSES


@pytest.mark.parametrize("name", FAMILIES.built_in)
def test_every_family_is_whole(name: str) -> None:
    """What a card names is there, and its parts know their modules."""
    import torch

    family = FAMILIES.load(name)
    assert family.name == family.config.FAMILY == name
    with torch.device("meta"):  # its default size takes gigabytes and minutes to fill
        network = family.network_class()(family.config())
    assert isinstance(network, torch.nn.Module)
    assert family.fitting() is not None
    assert family.training.parse({"family": name}).family == name
    if family.makes == "world_model":
        assert family.drawing().draw is not None
        assert family.headline in family.variants
        assert {variant.mode for variant in family.variants.values()} <= set(family.modes)
    for part in FAMILIES.parts_of(name):
        assert FAMILIES.modules(name, part)[0] == f"wfm.families.{name}.card"
