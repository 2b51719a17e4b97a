"""Configs: two halves, strict names, dotted overrides."""

import pydantic
import pytest

from wfm.config import Config, added, assign, how, knows, parse_assignment
from wfm.curation.dedup.dedup import DedupConfig
from wfm.curation.select.cluster import ClusterConfig
from wfm.curation.select.select import SplitRatio
from wfm.errors import ConfigError
from wfm.evaluation.config import EvaluationConfig
from wfm.generation.held_out_config import HeldOutConfig
from wfm.simulation.config import SimulationConfig
from wfm.training.config import TrainingConfig

FUTURES = type(HeldOutConfig.parse({"family": "diffusion"}))
SEEDED = (
    ClusterConfig, DedupConfig, EvaluationConfig, FUTURES, SimulationConfig, SplitRatio, TrainingConfig,
)  # fmt: skip


class Inner(Config):
    width: int = 8
    "Channels."
    workers: int = how(1)
    "Processes."


class Outer(Config):
    inner: Inner = Inner()
    maybe: Inner | None = None
    rate: float = 1.0
    names: tuple[str, ...] = ()


class Listed(Config):
    by_name: dict[str, Inner] = {}
    one_by_one: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"by_name": {"a": {"widht": 3}}}, "by_name.a.widht"),
        ({"one_by_one": [{}, {"widht": 3}]}, "one_by_one.1.widht"),
    ],
)
def test_a_section_that_is_one_of_several_says_its_choices_too(values: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown field '{where}'\. Did you mean 'width'\? Choices: width, workers"):
        Listed.parse(values)


def test_halves_do_not_mix() -> None:
    assert Outer().what() == {"inner": {"width": 8}, "maybe": None, "rate": 1.0, "names": []}
    assert Outer().how() == {"inner": {"workers": 1}}


def test_override_reaches_nested_fields_and_leaves_the_original() -> None:
    config = Outer()
    changed = config.override(["inner.width=16", 'names=["a", "b"]', "rate=2"])
    assert changed.inner.width == 16
    assert changed.names == ("a", "b")
    assert changed.rate == 2.0
    assert config.inner.width == 8


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("inner.widht=3", "Did you mean 'width'"),
        ("nothing=3", "unknown field 'nothing'"),
        ("rate.x=3", "has no fields of its own"),
        ("inner.width=wide", "inner.width"),
        ("rate", "not of the form"),
        ("rate=NaN", "rate"),
    ],
)
def test_wrong_override_names_the_field(assignment: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Outer().override([assignment])


def test_parse_names_unknown_keys_and_choices() -> None:
    with pytest.raises(ConfigError, match=r"unknown field 'inner\.widht'.*Choices: width, workers"):
        Outer.parse({"inner": {"widht": 1}})


def test_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        Outer().rate = 3.0  # type: ignore[misc]


def test_assignment_values_are_json_or_text() -> None:
    assert parse_assignment("a.b=[1,2]") == (["a", "b"], [1, 2])
    assert parse_assignment("a=some/path=x") == (["a"], "some/path=x")
    for text in ("[draft] two people", "{name} goes home", "it's {", "[", "{}x", "12,3"):
        assert parse_assignment(f"a={text}") == (["a"], text), "text that has a bracket"
    broken = 'training.data.lanes={"stills": {"sources": {"latents_stills": 1}}, "videos": {"rate": 3,}}'
    with pytest.raises(
        ConfigError,
        match=r"^training\.data\.lanes: the value begins as JSON and is none: .* character 69, after 'videos",
    ):
        parse_assignment(broken)
    with pytest.raises(ConfigError, match=r"where it ends, after .*double quotes, the whole in single quotes"):
        parse_assignment('a=[{"steps": 3}, {}')
    with pytest.raises(ConfigError, match=r"begins as JSON and is none"):
        parse_assignment("a={'stills': 1}")
    values = Outer().resolved()
    assign(values, ["inner", "width"], 3, Outer)
    assert values["inner"]["width"] == 3


@pytest.mark.parametrize("kind", SEEDED)
@pytest.mark.parametrize("wrong", [-1, 2**64, 1.5, 7.0, "7", True])
def test_a_seed_that_is_none_is_refused_by_name(kind, wrong) -> None:
    # Before: -1 went to numpy, which died in the middle of a stage, and to torch, which took it for 2**64 - 1.
    with pytest.raises(ConfigError, match=f"field 'seed' = {wrong!r}"):
        kind.parse({"seed": wrong})
    assert kind.parse({"seed": 2**64 - 1}).seed == 2**64 - 1


def test_a_field_added_later_enters_the_key_only_when_it_is_used():
    class Older(Config):
        width: int = 4

    class Younger(Older):
        edge: bool = added(False)

    assert Younger().what() == Older().what() == {"width": 4}
    assert Younger(edge=True).what() == {"width": 4, "edge": True}
    assert Younger().resolved() == {"width": 4, "edge": False}
    assert Younger.parse(Older().resolved()) == Younger()
    assert Younger.parse(Younger(edge=True).what()).edge


def test_a_section_a_choice_and_a_list_that_came_later_stay_out_too():
    """Before, a section entered the key whatever it said, and so did a list, since its default was written as a list."""

    class Edge(Config):
        width: int = 4
        threads: int = how(1)

    class Blur(Config):
        radius: float = 1.0

    class Younger(Config):
        edge: Edge = added(Edge())
        either: Edge | Blur = added(Blur(radius=2))
        names: tuple[str, ...] = added(["a"])
        rate: float = added(0)
        maybe: Edge | None = added(None)
        many: tuple[Edge, ...] = added((Edge(),))

    assert Younger().what() == {}
    assert Younger(edge=Edge(threads=9)).what() == {}
    moved = [
        {"edge": {"width": 5}}, {"either": {"width": 4}}, {"either": {"radius": 3.0}}, {"names": ["b"]}, {"rate": 1.0},
        {"maybe": {"width": 4}}, {"many": []},
    ]  # fmt: skip
    for values in moved:
        assert Younger.parse(values).what() == values


def test_the_default_of_a_field_may_move_and_its_neutral_value_stays():
    class Moved(Config):
        edge: int = added(0, default=3)

    assert Moved().edge == 3
    assert Moved().what() == {"edge": 3}
    assert Moved(edge=0).what() == {}


def test_configs_in_a_list_or_by_name_have_two_halves_as_well():
    """Before, a list of configs entered the key whole: with what cannot change the result, and with neutral values."""

    class One(Config):
        width: int = 4
        edge: int = added(0)
        threads: int = how(1)

    class Many(Config):
        ones: tuple[One, ...] = (One(),)
        named: dict[str, One] = {"a": One()}

    assert Many().what() == {"ones": [{"width": 4}], "named": {"a": {"width": 4}}}
    assert Many(ones=(One(threads=7),)).what() == Many().what()
    assert Many(ones=(One(edge=1),)).what()["ones"] == [{"width": 4, "edge": 1}]


def test_a_rule_that_did_not_reckon_with_a_value_is_an_error_of_ours():
    """It was the rule's own ZeroDivisionError."""

    class Halves(Config):
        whole: int = 4
        parts: int = 2

        @pydantic.model_validator(mode="after")
        def _even(self):
            assert self.whole % self.parts == 0
            return self

    with pytest.raises(ConfigError, match=r"Halves: these values cannot be \(ZeroDivisionError"):
        Halves.parse({"parts": 0})


def test_a_stage_wide_override_asks_who_has_the_field() -> None:
    assert knows(["inner", "width"], Outer)
    assert knows(["maybe", "workers"], Outer)
    assert not knows(["inner", "widht"], Outer)
    assert not knows(["nothing"], Outer)
