"""Settings that cannot work, found before anything runs: one small rule each, over a node and those whose results it reads.

What one config can tell alone it refuses itself (`wfm.config`). Here stands what takes two nodes, or the machine: windows that
a tokenizer cannot divide, limits on what nobody measures, files that are not there. Each problem names field, value and what to
set. Only nodes that would run are asked: what is committed did work.
"""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pydantic

from pipelines.asked import Asked, Rule, parsed
from pipelines.check_curation import (
    embedder_is_there,
    head_is_there,
    limits_are_measured,
    local_model_is_there,
    looks_can_be_read,
    measures_are_made,
    preset_exists,
    signatures_are_made,
    tower_is_there,
    video_types_exist,
)
from pipelines.nodes import Plan
from wfm.artifacts.address import KEY_PATTERN, NAME_PATTERN
from wfm.config import MOST_COUNT, MOST_NUMBER, Config
from wfm.errors import ConfigError, InputError
from wfm.models.family import FAMILIES, Family
from wfm.training.data_config import lanes_of, require_covered

if TYPE_CHECKING:
    from wfm.conditions.condition import Condition

_MOST_BY_NAME = {"threads": 4096, "workers": 4096, "concurrency": 4096, "side": 2**14, "size": 2**14}
"""By the last word of a field's name: no machine starts more threads, no picture has a longer side."""


def check_settings(plan: Plan) -> None:
    """Raise `ConfigError` with every setting of the nodes that would run that cannot work, wherever they run."""
    _check(plan, RULES, (numbers_in_reach, hashes_are_whole))


def check_files(plan: Plan) -> None:
    """The same for what has to be on this machine: whoever starts a run here asks."""
    _check(plan, FILES, ())


def _check(plan: Plan, rules: dict[str, tuple[Rule, ...]], every: tuple[Rule, ...]) -> None:
    problems = []
    for node in plan.missing:
        asked = Asked(node, parsed(node), plan)
        problems += [problem for rule in (*every, *rules.get(node.stage, ())) for problem in rule(asked)]
    if problems:
        raise ConfigError(f"pipeline {plan.pipeline!r} cannot run: " + "; ".join(problems))


def numbers_in_reach(asked: Asked) -> Iterator[str]:
    """No number is so large that it cannot be meant; a field that may hold more states its own bound."""
    for path, value, field in _leaves(asked.config, ""):
        if not isinstance(value, int | float):
            continue
        named = _MOST_BY_NAME.get(path.replace(".", "_").rsplit("_", 1)[-1])
        if named is not None and value > named:
            yield asked(path, f"that is beyond reach, give at most {named}")
            continue
        most = MOST_COUNT if isinstance(value, int) else MOST_NUMBER
        bounded = any(hasattr(rule, "lt") or hasattr(rule, "le") for rule in field.metadata)
        if abs(value) > most and not bounded:
            yield asked(path, f"that is beyond reach, give {-most:g} to {most:g}")


def hashes_are_whole(asked: Asked) -> Iterator[str]:
    """A hash that is stated is one, and not the beginning of one, or a name."""
    for path, value, _ in _leaves(asked.config, ""):
        if path.endswith("sha256") and value and not KEY_PATTERN.fullmatch(value):
            yield asked(path, "a sha256 is 64 lower-case hex digits; leave it empty where there is none")


def _leaves(config: Config, head: str) -> Iterator[tuple[str, Any, pydantic.fields.FieldInfo]]:
    """(dotted name, value, field) of every field, a tuple's values one by one."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _leaves(value, f"{head}{name}.")
        else:
            for one in value if isinstance(value, tuple) else (value,):
                yield f"{head}{name}", one, field


def frames_have_a_size(asked: Asked) -> Iterator[str]:
    """Pictures have pixels."""
    if min(asked.config.size) < 1:
        yield asked("size", "height and width are at least 1")


def windows_fit(asked: Asked) -> Iterator[str]:
    """The tokenizer divides the windows, in time and in space; of clips it takes what it divides."""
    config, made = asked.config, asked.behind("tokenizer")
    if config.take == "clips":
        if made is not None and config.max_pixels < made.model.spatial_compression**2:
            yield asked("max_pixels", f"one latent position has {made.model.spatial_compression**2} pixels, give more")
        if made is not None and 1 < config.max_frames <= made.model.temporal_compression:
            advice = f"a second latent frame needs {1 + made.model.temporal_compression}, give as many, or 1 for stills alone"
            yield asked("max_frames", advice)
        return
    for name in ("num_frames", "extrapolate_from"):
        if made is not None and getattr(config, name):
            try:
                made.model.latent_frames(getattr(config, name))
            except ValueError as error:
                yield asked(name, str(error))
    if made is not None and any(side % made.model.spatial_compression for side in config.size):
        yield asked("size", f"the tokenizer needs multiples of {made.model.spatial_compression}")


def splits_exist(asked: Asked) -> Iterator[str]:
    """What is encoded is there, and training has something to learn from."""
    from wfm.curation.rows import SPLITS

    if "train" not in asked.config.splits or not set(asked.config.splits) <= set(SPLITS):
        yield asked("splits", f"choices are {', '.join(SPLITS)}, train among them")
    yield from _not_empty(asked, "splits", "dataset")


def held_out_exists(asked: Asked) -> Iterator[str]:
    """Futures are predicted of clips that training has not seen."""
    if not asked.config.splits or not set(asked.config.splits) <= {"val", "test"}:
        yield asked("splits", "choices are val, test: of train the model says what it has learned")
    signals = asked.behind("signals")
    if signals is not None and (lacking := sorted(set(asked.config.splits) - set(signals.splits))):
        yield asked(
            "splits", f"{asked.node.inputs['signals']}.splits = {signals.splits!r}: add {', '.join(lacking)} there"
        )
    yield from _not_empty(asked, "splits", "dataset")


def _not_empty(asked: Asked, field: str, dataset: str) -> Iterator[str]:
    chosen = asked.before(dataset, "select_clips")
    for name in getattr(asked.config, field):
        if chosen is not None and getattr(chosen.split, name, 1.0) == 0 and name != "val":
            yield asked(field, f"select_clips.split.{name} is 0, nothing would be in it; give it a share")


def split_is_generated(asked: Asked) -> Iterator[str]:
    """What is judged was predicted."""
    made = asked.behind("generated")
    if made is not None and asked.config.split not in made.splits:
        yield asked("split", f"generate_videos.splits is {made.splits}, one of these is needed")


def past_fits(asked: Asked) -> Iterator[str]:
    """Something is given and something is left to predict, as the model was trained."""
    past, encoded, model = asked.config.past_frames, asked.behind("latents"), asked.behind("model")
    if encoded is None:
        return
    made = asked.behind("tokenizer")
    if encoded.take == "clips":
        advice = "futures are predicted of windows, which have one shape"
        yield f"{asked.node.name}: {asked.node.inputs['latents']}.take is 'clips'; {advice}"
    if past >= encoded.num_frames:
        yield asked("past_frames", f"windows have {encoded.num_frames} frames (encode_latents.num_frames), give fewer")
    elif made is not None:
        try:
            made.model.latent_frames(past)
        except ValueError as error:
            yield asked("past_frames", str(error))
    if model is not None and FAMILIES.load(model.family).shown_motion(model) and past != encoded.extrapolate_from:
        yield asked("past_frames", f"the model is shown what follows {encoded.extrapolate_from} frames, give as many")


def family_fits(asked: Asked) -> Iterator[str]:
    """Each family has a tokenizer and latents that it can learn from."""
    config, made = asked.config, asked.behind("tokenizer")
    family: Family = FAMILIES.load(config.family)
    if config.training.mixture and "mixture" in asked.node.inputs:
        yield asked("training.mixture", "classify_clips makes a mixture too, leave one of them out")
    if config.unfrozen_layers > family.layers(config):
        yield asked("unfrozen_layers", f"the network has {family.layers(config)} blocks")
    card: Any = made.model if made is not None else None
    try:
        if card is not None:
            family.require_tokenizer(card)
    except ConfigError as error:
        yield asked("family", f"{error}; {asked.node.inputs['tokenizer']}.model.levels is {card.levels}")
        return
    for name in _several(asked, "latents"):
        for field, advice in family.problems(config, card, asked.behind(name), asked.node.inputs[name]):
            yield asked(field, advice) if field else f"{asked.node.name}: {advice}"


def recipe_fits(asked: Asked) -> Iterator[str]:
    """A recipe draws from the inputs that are there, all of them, in phases that last as long as the run."""
    training = asked.config.training
    if training.data.mode == "packs":
        yield asked("training.data.mode", f"family {asked.config.family} trains on batches of one shape, set 'buckets'")
    sources = ["windows"] if asked.node.stage == "train_tokenizer" else _several(asked, "latents")
    try:
        lanes_of(training.data, sources)
        require_covered(training.data, training.steps)
    except ConfigError as error:
        yield f"{asked.node.name}.{error}"


def _several(asked: Asked, name: str) -> list[str]:
    """The inputs of a node that are called so, or so and something more."""
    return [each for each in asked.node.inputs if each == name or each.startswith(f"{name}_")]


def signals_are_made(asked: Asked) -> Iterator[str]:
    """What conditions make of frames is made, by the very fields that training reads it with."""
    from wfm.conditions.condition import Condition

    made = asked.behind("signals")
    if made is None or not asked.config.conditions:
        return
    source = asked.node.inputs["signals"]
    found = _conditions(source, made)
    for name, condition in _conditions(asked.node.name, asked.config).items():
        if type(condition).track is Condition.track:
            continue
        try:
            if name not in found:
                raise InputError(
                    f"it is made of frames, and {source}.conditions has {', '.join(found) or 'none'}: add it there"
                )
            condition.require_same(found[name], whose=source)
        except InputError as error:
            yield f"{asked.node.name}.conditions.{name}: {error}"


def _conditions(node: str, config: Any) -> "dict[str, Condition]":
    """Those of a node's config. Raises ConfigError naming node, condition and field."""
    from wfm.conditions.condition import parse

    try:
        return parse(config.conditions)
    except ConfigError as error:
        raise ConfigError(f"{node}.{error}") from None


def conditions_are_further(asked: Asked) -> Iterator[str]:
    """A model is not told twice of what its family has fields for."""
    names, family = getattr(asked.config, "conditions", ()), getattr(asked.config, "family", "")
    for name in names if family else ():
        if name in FAMILIES.load(family).own:
            yield asked("conditions", f"a {family} model has fields of its own for {name}: leave it out here")


def models_are_named(asked: Asked) -> Iterator[str]:
    """A stage names the families and conditions of the models it is given: of theirs only what it names is in its key, so
    it would refuse others, after they were trained."""
    for field, role in (("family", "model"), ("tokenizer_family", "tokenizer")):
        made, said = asked.behind(role), getattr(asked.config, field, "")
        if made is not None and said and said != made.family:
            yield asked(field, f"{asked.node.inputs[role]}.family is {made.family}, name that")
    model = asked.behind("model")
    if model is not None and set(getattr(asked.config, "conditions", model.conditions)) != set(model.conditions):
        trained = f"{asked.node.inputs['model']}.conditions has {', '.join(sorted(model.conditions)) or 'none'}"
        yield asked("conditions", f"{trained}, name the same")


def samples_are_joined(asked: Asked) -> Iterator[str]:
    """Signals and text are there for every sample of the latents."""
    inputs = asked.node.inputs
    for latents, name in itertools.product(_several(asked, "latents"), ("signals", "text")):
        own = f"{name}{latents.removeprefix('latents')}"
        joined = own if own in inputs else name
        encoded, beside, source = asked.behind(latents), asked.behind(joined), inputs.get(joined, "")
        if encoded is None or beside is None:
            continue
        if lacking := sorted({"train", "val"} & set(encoded.splits) - set(beside.splits)):
            yield f"{source}.splits = {beside.splits!r}: the latents have {', '.join(lacking)} too, add it"
        if name == "text" and encoded.mirror and not beside.mirror:
            yield f"{source}.mirror = False: {inputs[latents]}.mirror is on, switch both on or off"


def splits_are_known(asked: Asked) -> Iterator[str]:
    """What is read of the data set can be there."""
    from wfm.curation.rows import SPLITS

    if not asked.config.splits or not set(asked.config.splits) <= set(SPLITS):
        yield asked("splits", f"choices are {', '.join(SPLITS)}")


def decoder_fits(asked: Asked) -> Iterator[str]:
    """Latents and tokens come of tokenizers of one temporal compression."""
    latents, tokens = asked.behind("tokenizer"), asked.behind("tokenizer_discrete")
    if latents is None or tokens is None:
        return
    pair = (latents.model.temporal_compression, tokens.model.temporal_compression)
    if pair[0] != pair[1]:
        yield f"{asked.node.name}: its tokenizers compress time {pair[0]} and {pair[1]} times, use one compression"
    if latents.model.discrete or not tokens.model.discrete:
        yield f"{asked.node.name}: it needs a tokenizer without levels and one with levels"


def name_is_plain(asked: Asked) -> Iterator[str]:
    """A published model's name can be one."""
    if asked.config.name and not NAME_PATTERN.fullmatch(asked.config.name):
        yield asked("name", "use letters, digits, '.', '_' and '-', or leave it empty for the family's")


RULES: dict[str, tuple[Rule, ...]] = {
    "split_clips": (preset_exists,),
    "score_clips": (measures_are_made,),
    "dedup_clips": (signatures_are_made,),
    "select_clips": (limits_are_measured, video_types_exist),
    "classify_clips": (looks_can_be_read,),
    "train_tokenizer": (frames_have_a_size, recipe_fits),
    "encode_latents": (frames_have_a_size, models_are_named, windows_fit, splits_exist),
    "encode_signals": (splits_are_known,),
    "encode_text": (splits_are_known,),
    "train_world_model": (
        models_are_named,
        conditions_are_further,
        family_fits,
        recipe_fits,
        samples_are_joined,
        signals_are_made,
    ),
    "train_decoder": (models_are_named, decoder_fits, recipe_fits),
    "generate_videos": (models_are_named, past_fits, held_out_exists),
    "evaluate_model": (split_is_generated,),
    "publish_model": (models_are_named, name_is_plain),
}
"""Stage -> what is asked of a node of it."""

FILES: dict[str, tuple[Rule, ...]] = {
    "score_clips": (embedder_is_there,),
    "caption_clips": (local_model_is_there,),
    "embed_clips": (embedder_is_there, head_is_there),
    "classify_clips": (tower_is_there,),
}
"""Stage -> what has to lie on this machine for it."""
