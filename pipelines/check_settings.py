"""Settings that cannot work, found before anything runs: one small rule each, over a node and those whose results it reads.

What one config can tell alone it refuses itself (`wfm.config`). Here stands what takes two nodes, or the machine: windows that
a tokenizer cannot divide, limits on what nobody measures, files that are not there. Each problem names field, value and what to
set. Only nodes that would run are asked: what is committed did work.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from wfm.artifacts.address import KEY_PATTERN, NAME_PATTERN
from wfm.config import MOST_COUNT, MOST_NUMBER, Config
from wfm.errors import ConfigError
from wfm.models.family import FAMILIES, Family

if TYPE_CHECKING:
    from pipelines.plan import Node, Plan

_MOST_BY_NAME = {"threads": 4096, "workers": 4096, "concurrency": 4096, "side": 2**14, "size": 2**14}
"""By the last word of a field's name: no machine starts more threads, no picture has a longer side."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A node that would run, with its config parsed, and how to find those behind it."""

    node: "Node"
    config: Any
    plan: "Plan"

    def behind(self, name: str) -> Any:
        """The config of the node that makes an input; None where it is not part of this plan."""
        source = self.node.inputs.get(name, "")
        return next((parsed(node) for node in self.plan.nodes if node.name == source), None)

    def before(self, name: str, stage: str) -> Any:
        """The config of the nearest node of a stage behind an input, at any distance; None without one."""
        waiting = [self.node.inputs.get(name, "")]
        nodes = {node.name: node for node in self.plan.nodes}
        while waiting:
            node = nodes.get(waiting.pop(0))
            if node is not None:
                if node.stage == stage:
                    return parsed(node)
                waiting += node.inputs.values()
        return None

    def __call__(self, field: str, advice: str) -> str:
        """The words of a problem: node, field, value, and what to do."""
        value: Any = self.config
        for name in field.split("."):
            value = getattr(value, name)
        return f"{self.node.name}.{field} = {value!r}: {advice}"


def parsed(node: "Node") -> Any:
    """A node's config, as its component reads it."""
    from pipelines.plan import config_class

    return config_class(node.component).parse(node.config)


def check_settings(plan: "Plan") -> None:
    """Raise `ConfigError` with every setting of the nodes that would run that cannot work, wherever they run."""
    _check(plan, RULES, (numbers_in_reach, hashes_are_whole))


def check_files(plan: "Plan") -> None:
    """The same for what has to be on this machine: whoever starts a run here asks."""
    _check(plan, FILES, ())


def _check(plan: "Plan", rules: "dict[str, tuple[Rule, ...]]", every: "tuple[Rule, ...]") -> None:
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


def preset_exists(asked: Asked) -> Iterator[str]:
    """The encoder knows the speed by its name."""
    from wfm.curation.cut.transcode import SPEEDS

    if asked.config.cut.preset not in SPEEDS:
        yield asked("cut.preset", f"choices are {', '.join(SPEEDS)}")


def measures_are_made(asked: Asked) -> Iterator[str]:
    """What writes into the table of measures needs the table."""
    for name in ("text_detector", "nsfw"):
        if getattr(asked.config, name) and not asked.config.measures:
            yield asked(name, "it writes into the measures, add --set score_clips.measures=true")


def embedder_is_there(asked: Asked) -> Iterator[str]:
    """A trained embedder has its files, their hash, and leave to run."""
    from wfm.curation.embed.embed import MODEL
    from wfm.curation.embed.embedders import RUNS_CODE

    config, head = asked.config, ""
    if asked.node.stage == "score_clips":
        config, head = asked.config.embed, "embed."
    if config is None or config.model == MODEL:
        return
    if not config.weights or not Path(config.weights).exists():
        yield asked(f"{head}weights", f"model={config.model} needs a local file or folder, and none is there")
    if not config.weights_sha256:
        yield asked(
            f"{head}weights_sha256", f"model={config.model} needs the sha256 of its weights, which enters the key"
        )
    if config.model in RUNS_CODE and not config.run_code:
        yield asked(
            f"{head}run_code", f"model={config.model} runs code that lies beside its weights; read it, then say true"
        )


def head_is_there(asked: Asked) -> Iterator[str]:
    """The head over the embeddings has its file and the file's hash."""
    head = asked.config.aesthetic
    if bool(head.head) != bool(head.sha256):
        yield asked("aesthetic.head", f"aesthetic.sha256 is {head.sha256!r}; give both or neither")
    elif head.head and not Path(head.head).is_file():
        yield asked("aesthetic.head", "there is no such file; give the head's safetensors file")


def local_model_is_there(asked: Asked) -> Iterator[str]:
    """A local captioner has its folder."""
    config = asked.config
    if config.source == "local" and not (Path(config.local.folder) / "config.json").is_file():
        yield asked("local.folder", "there is no config.json in it; give a folder as save_pretrained writes it")


def signatures_are_made(asked: Asked) -> Iterator[str]:
    """The perceptual tier compares signatures."""
    embed = asked.behind("embeddings")
    if asked.config.look and embed is not None and not embed.signatures:
        yield asked("look", "embed_clips makes no signatures, add --set embed_clips.signatures=true")


def limits_are_measured(asked: Asked) -> Iterator[str]:
    """A limit that is on is one on something that is measured."""
    from wfm.curation.select.measurement_limits import limited

    scores, embed = asked.behind("scores"), asked.behind("embeddings")
    limits = asked.config.measured
    on = [name for name in type(limits).model_fields if getattr(limits, name) not in (None, False, ())]
    if scores is not None:
        for name in on:
            row = limited(name)
            if row.table == "measures" and not scores.measures:
                yield asked(f"measured.{name}", "nothing is measured, add --set score_clips.measures=true")
            elif row.asked and not getattr(scores, row.asked.partition("=")[0]):
                yield asked(f"measured.{name}", f"add --set score_clips.{row.asked}, or leave the limit off")
    if embed is not None and asked.config.minimum_aesthetic is not None and not embed.aesthetic.sha256:
        yield asked("minimum_aesthetic", "nothing gives that score, set embed_clips.aesthetic.head and its sha256")


def video_types_exist(asked: Asked) -> Iterator[str]:
    """Types that are refused are types that are told apart."""
    from wfm.curation.measure.video_type import TYPES

    if not set(asked.config.measured.drop_video_types) <= set(TYPES):
        yield asked("measured.drop_video_types", f"choices are {', '.join(TYPES)}")


def looks_can_be_read(asked: Asked) -> Iterator[str]:
    """Descriptions meet looks in the space of a CLIP alone."""
    embed = asked.behind("embeddings")
    if asked.config.by == "looks" and embed is not None and embed.model != "clip":
        yield asked("by", f"embed_clips.model is {embed.model}, which reads no words; use clip, or by=captions")


def tower_is_there(asked: Asked) -> Iterator[str]:
    """The CLIP that reads descriptions has its folder."""
    if asked.config.by == "looks" and asked.config.weights and not Path(asked.config.weights).exists():
        yield asked("weights", "there is no such folder")


def frames_have_a_size(asked: Asked) -> Iterator[str]:
    """Pictures have pixels."""
    if min(asked.config.size) < 1:
        yield asked("size", "height and width are at least 1")


def windows_fit(asked: Asked) -> Iterator[str]:
    """The tokenizer divides the windows, in time and in space."""
    config, made = asked.config, asked.behind("tokenizer")
    for name in ("num_frames", "guess_from"):
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
    if asked.config.sampling.sigma_min >= asked.config.sampling.sigma_max:
        yield asked("sampling.sigma_min", f"it is below sigma_max, {asked.config.sampling.sigma_max:g}")
    if encoded is None:
        return
    made = asked.behind("tokenizer")
    if past >= encoded.num_frames:
        yield asked("past_frames", f"windows have {encoded.num_frames} frames (encode_latents.num_frames), give fewer")
    elif made is not None:
        try:
            made.model.latent_frames(past)
        except ValueError as error:
            yield asked("past_frames", str(error))
    if model is not None and FAMILIES.load(model.family).shown_motion(model) and past != encoded.guess_from:
        yield asked("past_frames", f"the model is shown what follows {encoded.guess_from} frames, give as many")


def family_fits(asked: Asked) -> Iterator[str]:
    """Each family has a tokenizer and latents that it can learn from."""
    config, made, encoded = asked.config, asked.behind("tokenizer"), asked.behind("latents")
    family: Family = FAMILIES.load(config.family)
    if config.training.mixture and "mixture" in asked.node.inputs:
        yield asked("training.mixture", "classify_clips makes a mixture too, leave one of them out")
    if config.unfrozen_layers > family.layers(config):
        yield asked("unfrozen_layers", f"the network has {family.layers(config)} blocks")
    card = made.model if made is not None else None
    if card is not None:
        try:
            family.require_tokenizer(card)
        except ConfigError as error:
            yield asked("family", f"{error}; {asked.node.inputs['tokenizer']}.model.levels is {card.levels}")
            return
    for field, advice in family.problems(config, card, encoded, asked.node.inputs["latents"]):
        yield asked(field, advice) if field else f"{asked.node.name}: {advice}"


def samples_are_joined(asked: Asked) -> Iterator[str]:
    """Signals and text are there for every sample of the latents."""
    encoded = asked.behind("latents")
    for name in ("signals", "text"):
        beside, source = asked.behind(name), asked.node.inputs.get(name, "")
        if encoded is None or beside is None:
            continue
        if lacking := sorted({"train", "val"} & set(encoded.splits) - set(beside.splits)):
            yield f"{source}.splits = {beside.splits!r}: the latents have {', '.join(lacking)} too, add it"
        if name == "text" and encoded.mirror and not beside.mirror:
            yield f"{source}.mirror = False: {asked.node.inputs['latents']}.mirror is on, switch both on or off"


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


Rule = Callable[[Asked], Iterator[str]]
RULES: dict[str, tuple[Rule, ...]] = {
    "split_clips": (preset_exists,),
    "score_clips": (measures_are_made,),
    "dedup_clips": (signatures_are_made,),
    "select_clips": (limits_are_measured, video_types_exist),
    "classify_clips": (looks_can_be_read,),
    "train_tokenizer": (frames_have_a_size,),
    "encode_latents": (frames_have_a_size, windows_fit, splits_exist),
    "encode_signals": (splits_are_known,),
    "encode_text": (splits_are_known,),
    "train_world_model": (family_fits, samples_are_joined),
    "train_decoder": (decoder_fits,),
    "generate_videos": (past_fits, held_out_exists),
    "evaluate_model": (split_is_generated,),
    "publish_model": (name_is_plain,),
}
"""Stage -> what is asked of a node of it."""

FILES: dict[str, tuple[Rule, ...]] = {
    "score_clips": (embedder_is_there,),
    "caption_clips": (local_model_is_there,),
    "embed_clips": (embedder_is_there, head_is_there),
    "classify_clips": (tower_is_there,),
}
"""Stage -> what has to lie on this machine for it."""
