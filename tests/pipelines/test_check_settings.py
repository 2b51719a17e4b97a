"""Settings that cannot work are refused before anything runs. What the old code did stands beside each group."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from components import derivation
from pipelines import plan as planning
from pipelines.check_settings import FILES, RULES
from pipelines.engines.budget import check_budget, check_devices, check_ranks, devices, machine, workers
from pipelines.plan import recipe, resolve
from pipelines.request import Request
from pipelines.stages import STAGES, Resources
from pipelines.start_run import start
from wfm import registry
from wfm.artifacts import Store
from wfm.conditions.condition import Condition
from wfm.data.signals import Track
from wfm.errors import ConfigError, InputError
from wfm.models.slots import Slot

CONTINUOUS = "train_tokenizer_continuous"
CLIPS = "encode_latents.take=clips encode_latents.extrapolate_from=0"
LOCAL = f"caption_clips.local.folder=/no/x caption_clips.local.folder_sha256={'0' * 64} caption_clips.source=local"
CLIP = ["embed_clips.model=clip", f"embed_clips.weights={sys.executable}", "embed_clips.weights_sha256=" + "0" * 64]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        # One field. The old code took each: an exception in the stage ("expected non-negative integer", a division by
        # zero, an overflow), a run without end, or a result that means nothing.
        ("simulate_videos.seed=-1", r"SimulationConfig: field 'seed' = -1: .* greater than or equal to 0"),
        ("simulate_videos.preset=fastest", r"field 'preset' = 'fastest': .*'ultrafast', .*'veryslow'"),
        ("split_clips.shots.adaptive_ratio=-3", r"field 'shots.adaptive_ratio' = -3: .* greater than 0"),
        ("split_clips.shots.device=gpu", r"field 'shots.device' = 'gpu': choices are cpu, cuda"),
        ("split_clips.cut.preset=swift", r"split_clips.cut.preset = 'swift': choices are veryslow, .*ultrafast"),
        ("score_clips.device=nope", r"field 'device' = 'nope': .*'cpu' or 'cuda'"),
        ("dedup_clips.device=cuda:0", r"field 'device' = 'cuda:0': .*'cpu' or 'cuda'"),
        ("dedup_clips.perceptual.length=7", r"'perceptual.length' = 7: .* less than or equal to 1"),
        ("embed_clips.weights_sha256=abc", r"weights_sha256 = 'abc': a sha256 is 64 lower-case hex digits"),
        ("select_clips.maximum_black_share=-1", r"'maximum_black_share' = -1"),
        ("select_clips.maximum_black_share=NaN", r"'maximum_black_share' = nan: .* finite number"),
        ("select_clips.split.train=0 select_clips.split.val=0 select_clips.split.test=0", r"one must be above 0"),
        ("write_shards.maximum_shard_bytes=0", r"'maximum_shard_bytes' = 0"),
        ("cluster_clips.words=-1", r"'words' = -1"),
        ("train_tokenizer.stride_frames=0", r"'stride_frames' = 0"),
        ("train_tokenizer.loss.gradient_weight=-1", r"'loss.gradient_weight' = -1"),
        ("encode_latents.batch_size=0", r"'batch_size' = 0"),
        # Recipes of data that its stage refused, after all the stages before it had run.
        (
            'train_diffusion.training.data.lanes={"a":{"sources":{"stills":1}}}',
            r"train_diffusion.training.data: lane 'a' draws from 'stills', which is no input of this stage; inputs: latents",
        ),
        ('train_tokenizer.training.data.lanes={"a":{"sources":{"latents":1}}}', r"no input of this stage; inputs: windows"),
        ('train_diffusion.training.data.phases=[{"steps":10}]', r"phases are 10 steps, and training.steps is \d+: leave out"),
        (
            "train_tokenizer.training.data.mode=packs train_tokenizer.training.data.tokens=64",
            r"training.data.mode = 'packs': family .* set 'buckets'",
        ),
        ("train_autoregressive.autoregressive.kv_heads=0", r"'autoregressive.kv_heads' = 0"),  # ZeroDivisionError
        ("train_autoregressive.cross_entropy.label_smoothing=2", r"'cross_entropy.label_smoothing' = 2"),
        ("train_diffusion.edm.pixel_share=-1", r"'edm.pixel_share' = -1"),
        ("train_diffusion.training.validate_every=-5", r"'training.validate_every' = -5"),
        ("train_diffusion.training.checkpoint_every=0", r"'training.checkpoint_every' = 0"),  # ZeroDivisionError
        ("train_diffusion.training.betas=[0.9,1]", r"'training.betas.1' = 1: .* less than 1"),
        ("train_tokenizer.size=[0,64]", r"train_tokenizer_continuous.size = \(0, 64\): height and width are at least 1"),
        ("evaluate_model.resamples=0", r"'resamples' = 0"),
        ("evaluate_model.threads=-1", r"'threads' = -1"),
        # A number that only an overflow would have told of.
        ("train_diffusion.training.batch_size=1000000000000", r"train_diffusion.training.batch_size = 1000000000000: that is"),
        ("split_clips.shots.maximum_seconds=1e300", r"split_clips.shots.maximum_seconds = 1e\+300: that is beyond reach"),
        ("train_tokenizer.size=[64,9000000000]", r"train_tokenizer_continuous.size = \(64, 9000000000\): that is beyond"),
        # Two nodes. The old code ran everything up to the stage that could not work.
        ("score_clips.nsfw=true", r"score_clips.nsfw = True: .*--set score_clips.measures=true"),
        ("select_clips.measured.minimum_flow=1", r"select_clips.measured.minimum_flow = 1.0: .*score_clips.measures=true"),
        (
            "score_clips.measures=true select_clips.measured.maximum_nsfw=0.5",
            r"measured.maximum_nsfw = 0.5: add --set score_clips.nsfw=true",
        ),
        ('select_clips.measured.drop_video_types=["cartoon"]', r"\('cartoon',\): choices are still, slideshow"),
        ("select_clips.minimum_aesthetic=5", r"select_clips.minimum_aesthetic = 5.0: .*embed_clips.aesthetic.head"),
        ("dedup_clips.look=true", r"dedup_clips.look = True: .*embed_clips.signatures=true"),
        ("classify_clips.by=looks", r"classify_clips.by = 'looks': embed_clips.model is dct3d-v1"),
        ("encode_latents.num_frames=32", r"encode_latents_continuous.num_frames = 32: .*nearest are 25 or 33"),
        ("encode_latents.extrapolate_from=33", r"extrapolate_from is 33; give 0 for none, or 2 to 32 frames"),
        ("encode_latents.max_frames=9", r"max_frames is 9, which is not for take = 'windows'"),
        ("encode_latents.take=clips", r"extrapolate_from is 9, which is not for take = 'clips'"),
        (f"{CLIPS} encode_latents.max_pixels=63", r"max_pixels = 63: one latent position has 64 pixels, give more"),
        (f"{CLIPS} encode_latents.max_frames=8", r"max_frames = 8: a second latent frame needs 9"),
        (CLIPS, r"generate_diffusion: encode_latents_continuous.take is 'clips'; futures are predicted of windows"),
        ("encode_latents.size=[60,64]", r"size = \(60, 64\): the tokenizer needs multiples of 8"),
        ('encode_latents.splits=["val"]', r"splits = \('val',\): choices are train, val, test, train among them"),
        ('encode_latents.splits=["train","tset"]', r"choices are train, val, test"),
        ('encode_signals.splits=["train","tset"]', r"encode_signals.splits = .*choices are train, val, test"),
        ('encode_signals.splits=["train","val"]', r"generate_diffusion.splits = .*encode_signals.splits = .*: add test there"),
        ('encode_signals.splits=["train","test"]', r"encode_signals.splits = .*: the latents have val too, add it"),
        ('encode_text.splits=["train"]', r"encode_text.splits = \('train',\): the latents have val too, add it"),
        ("encode_text.text.encoder=none", r"text.encoder is 'none': choose minilm, or folder"),
        ("select_clips.split.train=0", r"encode_latents_continuous.splits .* select_clips.split.train is 0"),
        ("select_clips.split.test=0", r"generate_diffusion.splits = \('test',\): select_clips.split.test is 0"),
        ('generate_videos.splits=["train"]', r"choices are val, test"),
        ("generate_videos.splits=[]", r"choices are val, test"),
        ("evaluate_model.split=val", r"evaluate_diffusion.split = 'val': generate_videos.splits is \('test',\)"),
        ("generate_videos.past_frames=33", r"past_frames = 33: windows have 33 frames"),
        ("generate_videos.past_frames=10", r"past_frames = 10: .*nearest are 9 or 17"),
        ("generate_videos.past_frames=17", r"past_frames = 17: the model is shown what follows 9 frames"),
        ("generate_videos.sampling.sigma_min=90", r"sigma_min is 90; it must lie below sigma_max, 80"),
        ("train_diffusion.family=autoregressive", r"'family' = 'autoregressive', and diffusion, edm.* are of family diffusion"),
        (f"{CONTINUOUS}.model.levels=[8,8,8,8,8,8,8,8]", r"train_diffusion.family = 'diffusion': .*without levels"),
        ("train_diffusion.unfrozen_layers=3", r"train_diffusion.unfrozen_layers = 3: the network has 2 blocks"),
        ("train_diffusion.diffusion.network.in_channels=4", r"diffusion.network.in_channels is 4 .* make it 8: leave it"),
        ("train_diffusion.diffusion.network.max_size=[2,64,64]", r"max_size = \(2, 64, 64\): latents .* are \(5, 8, 8\)"),
        ("train_diffusion.diffusion.network.patch_size=[1,3,3]", r"patch_size = \(1, 3, 3\): .* take divisors"),
        ("train_autoregressive.autoregressive.patch=3", r"autoregressive.patch = 3: token frames are 8 x 8"),
        ("train_diffusion.edm.condition_latents=[5]", r"edm.condition_latents = \(5,\): a window has 5 latent frames"),
        ("train_diffusion.edm.condition_latents=[1]", r"edm.condition_latents is \(1,\): give 2 or more latent frames"),
        ("train_diffusion.edm.condition_latents=[3]", r"edm.condition_latents = \(3,\): that means \[17\] given frames"),
        ("encode_latents.extrapolate_from=0", r"diffusion.extrapolate = True: encode_latents_continuous.extrapolate_from is 0"),
        ("publish_diffusion.family=autoregressive", r"autoregressive.: train_diffusion.family is diffusion, name that"),
        ("generate_videos.tokenizer_family=diffusion", r"'diffusion': train_tokenizer_continuous.family is tokenizer, name"),
        ('generate_diffusion.conditions=["camera"]', r"\('camera',\): train_diffusion.conditions has none, name the same"),
        ('train_diffusion.conditions={"depth":{}}', r"train_diffusion: conditions: unknown condition 'depth'. Choices: past,"),
        ('train_diffusion.conditions={"text":{}}', r"train_diffusion.conditions = .* has fields of its own for text"),
        ('train_diffusion.conditions={"camera":{"foo":1}}', r"train_diffusion.conditions.camera: Camera: unknown field 'foo'"),
        ('encode_signals.conditions={"depth":{}}', r"encode_signals: conditions: unknown condition 'depth'"),
        ("train_diffusion.family=foo", r"train_diffusion: field 'family': unknown family 'foo'. Choices: tokenizer, "),
        (
            'train_diffusion.diffusion.conditions={"text":{"slot":"context","width":3,"tensors":["text"]}}',
            r"train_diffusion: .*: diffusion.conditions is .*'text'.* follows from the stage's own field 'conditions'",
        ),
        # The old code said what a slot lacks, or began to train and then said to leave it out.
        ('train_diffusion.diffusion.conditions={"camera":{}}', r"name there what .* as in conditions={\"camera\":{}}"),
        ('train_diffusion.diffusion.network.conditions={"x":1}', r"diffusion.network.conditions is {'x': 1} and follows"),
        ('train_autoregressive.autoregressive.conditions={"camera":{}}', r"autoregressive.conditions is .* and follows"),
        ("train_diffusion.ranks=0", r"NodeNeeds: field 'resources.ranks' = 0"),
        ("generate_diffusion.ranks=2", r"generate_diffusion.ranks = 2: generate_videos is one process; ranks share a training"),
        ("train_diffusion.resources.gpu=x", r"NodeNeeds: field 'resources.gpu' = 'x': .* valid integer"),
        ("publish_model.name=a/b", r"publish_diffusion.name = 'a/b': use letters, digits"),
        # Files.
        ("embed_clips.model=clip embed_clips.weights=/nonexistent/x", r"embed_clips.weights = '/nonexistent/x': model=clip"),
        ("embed_clips.model=clip embed_clips.weights=/", r"embed_clips.weights_sha256 = ''"),
        ("embed_clips.model=torchscript embed_clips.weights=/", r"embed_clips.run_code = False"),
        ("embed_clips.aesthetic.head=/nonexistent/x", r"embed_clips.aesthetic.head = '/nonexistent/x': .*give both"),
        (
            LOCAL,
            r"caption_clips.*local.folder = '/no/x': there is no config.json",
        ),
        (" ".join([*CLIP, "classify_clips.by=looks", "classify_clips.weights=/nonexistent/x"]), r"classify_clips.weights = "),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_runs(store: Store, overrides: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Request("world_model", "smoke", overrides=tuple(overrides.split(" "))).plan(store)


def test_the_decoder_needs_tokenizers_of_one_compression(store: Store) -> None:
    asked = ["train_tokenizer_discrete.model.temporal_compression=4", "train_tokenizer_discrete.model.patch_size=4"]
    asked += ["train_tokenizer_discrete.model.channels=[32,32,32]"]
    with pytest.raises(ConfigError, match="train_decoder: its tokenizers compress time 8 and 4 times"):
        resolve("decoder", profile="smoke", store=store, overrides=asked)


def test_what_is_made_already_is_not_asked(store: Store) -> None:
    """Weights need not lie where a plan is made whose embeddings are committed."""
    asked = Request("curate", "smoke", overrides=(CLIP[0], "embed_clips.weights=/nonexistent/x", CLIP[2]))
    with pytest.raises(ConfigError, match=r"embed_clips\.weights"):
        asked.plan(store)
    key = resolve("curate", profile="smoke", store=store, overrides=CLIP).node("embed_clips").key or ""
    with store.attempt(key) as attempt:
        attempt.commit(stage="embed_clips", kind="embeddings", counts={})
    assert asked.plan(store).node("embed_clips").done


def test_every_rule_is_of_a_stage() -> None:
    assert {*RULES, *FILES} <= set(STAGES)


def test_a_misspelt_node_of_a_recipe_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old code ignored it: the recipe's values were not used, and nobody heard of it."""
    misspelt = {**recipe("smoke"), "train_difusion": {"training": {"steps": 1}}}
    monkeypatch.setattr(planning, "recipe", lambda profile: misspelt)
    for pipeline in ("world_model", "curate", "decoder"):
        with pytest.raises(
            ConfigError, match=r"recipe 'smoke': unknown node 'train_difusion'. Did you mean 'train_diffusion'"
        ):
            resolve(pipeline, profile="smoke", store=store)


@pytest.mark.parametrize("amount", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_lets_nothing_run_is_refused_before_planning(store: Store, amount: float) -> None:
    """The old code took 0 for "this machine's"; of the others it died ("a bug of ours"), or waited for ever."""
    with pytest.raises(InputError, match=r"--cpu .* lets nothing run: give a number of processors above 0"):
        check_budget(amount, None)
    with pytest.raises(InputError, match=r"--memory .* GiB above 0"):
        start(Request("curate", "smoke"), store, memory_gib=amount)
    assert store.runs.list() == []


def test_devices_that_this_machine_does_not_have_are_refused_before_a_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old code took a stage sized for a cluster's card and began to train it on the processor."""
    more = devices() + 1
    asked = Request("world_model", "smoke", overrides=(f"train_diffusion.resources.gpu={more}",))
    with pytest.raises(InputError, match=rf"train_diffusion.resources.gpu is {more}, and this machine has .* device"):
        start(asked, store)
    assert store.runs.list() == []
    node = asked.plan(store).node("train_diffusion")
    monkeypatch.setattr("pipelines.engines.budget.devices", lambda: 3)
    two = dataclasses.replace(node, resources=Resources(gpu=2, ranks=2))
    with pytest.raises(
        InputError, match=r"gpu is 2 for each of 2 ranks, 4 together, and .* 3 CUDA devices: give 1 with"
    ):
        check_devices([two])  # the old code let each of them take the same two
    check_devices([dataclasses.replace(node, resources=Resources(gpu=1, ranks=3))])
    alone = Request("world_model", "smoke", overrides=("train_diffusion.resources.cpu=100",))
    assert alone.plan(store).node("train_diffusion").resources.cpu == 100


def test_ranks_are_a_matter_of_the_machine_and_of_no_key(store: Store) -> None:
    alone = Request("world_model", "smoke").plan(store).node("train_diffusion")
    for words in ("train_diffusion.ranks=2", "train_diffusion.resources.ranks=2", "train_world_model.ranks=2"):
        split = Request("world_model", "smoke", overrides=(words,)).plan(store).node("train_diffusion")
        assert (split.resources.ranks, split.key, split.config) == (2, alone.key, alone.config)
    check_ranks([split], cpu=2.0, memory_gib=8.0)
    with pytest.raises(
        InputError, match=r"train_diffusion.ranks is 2, and this run has 1 processors .* Give 1 at most"
    ):
        check_ranks([split], cpu=1.0, memory_gib=8.0)
    many = Request("world_model", "smoke", overrides=("train_diffusion.ranks=500",))
    with pytest.raises(InputError, match=r"train_diffusion\.ranks is 500"):
        start(many, store)
    assert not store.runs.list(), "refused before a run is created"


def test_a_budget_far_beyond_the_machine_or_too_small_for_a_stage_is_refused(store: Store) -> None:
    """The old code began to start a thousand million workers, or killed every worker for its memory, again and again."""
    with pytest.raises(
        InputError, match=r"--cpu 1e\+09 is far more than this machine's .* processors: give \d+ at most"
    ):
        check_budget(1e9, None)
    with pytest.raises(InputError, match=r"--memory 1e\+09 is far more than this machine's .* GiB: give"):
        start(Request("curate", "smoke"), store, memory_gib=1e9)
    with pytest.raises(InputError, match=r"--memory 0.001 lets no stage run: give 0.5 GiB at least"):
        check_budget(None, 0.001)
    assert store.runs.list() == []
    check_budget(*machine())
    assert [workers(cpu, memory, "curation") for cpu, memory in ((2, 8), (0.5, 8), (8, 1), (4, 0.5))] == [2, 1, 2, 1]


@pytest.mark.parametrize(
    "setting",
    [
        "score_clips.still_side=1000000000",
        "embed_clips.side=1000000000",
        "simulate_videos.workers=1000000000",
        "encode_latents_continuous.size=[1000000000,64]",
        "evaluate_diffusion.threads=1000000000",
    ],
)
def test_pictures_and_threads_beyond_reach_are_refused(store: Store, setting: str) -> None:
    """The old code took each, and ended where memory or threads did."""
    with pytest.raises(ConfigError, match=r"that is beyond reach, give at most (4096|16384)"):
        resolve("world_model", profile="smoke", store=store, overrides=[setting])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("ingest_videos.part_bytes=true", "field 'part_bytes' = true: give a number, not true or false"),
        ("select_clips.minimum_motion=true", "field 'minimum_motion' = true: give a number"),
        ("train_tokenizer_continuous.model.end_kernel=true", "field 'model.end_kernel' = true: give a number"),
        ("train_diffusion.training.betas=[0.9,false]", r"field 'training.betas' = \[0.9, false\]: give a number"),
        ("train_tokenizer_continuous.num_frames=32", r"num_frames = 32: .*nearest are 25 or 33"),
        ("dedup_clips.against=abc", "dedup_clips.against = 'abc': .*is not a reference"),
        ("dedup_clips.against=dataset/none", "dedup_clips.against = 'dataset/none': there is no dataset/none@latest"),
    ],
)
def test_the_field_and_its_value_are_named(store: Store, setting: str, words: str) -> None:
    """The old code took true for 1 (parts of one byte), and left out which field was meant for the others."""
    with pytest.raises(InputError, match=words):
        resolve("world_model", profile="smoke", store=store, overrides=[setting])
    resolve("world_model", profile="smoke", store=store, overrides=["score_clips.measures=true"])  # where it belongs


class Glow(Condition):
    """A condition that makes its signal of frames."""

    name: ClassVar[str] = "glow"
    slot: ClassVar[Slot] = "vector"
    frames: int = 5

    def track(self, frames: np.ndarray, fps: float) -> Track:
        return Track(frames.mean(axis=(1, 2, 3))[:, None].astype(np.float32), {})


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (
            {},
            r"train_diffusion.conditions.glow: it is made of frames, and encode_signals.conditions has none: add it there",
        ),
        ({"glow": {"frames": 4}}, r"'glow' mismatch in 'frames': the model was trained with 5, encode_signals has 4"),
        ({"glow": {"dropout": 0.3}}, ""),
    ],
)
def test_what_a_condition_makes_of_frames_is_asked_for_before_anything_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch, made: dict[str, dict[str, object]], says: str
) -> None:
    monkeypatch.setattr(registry, "_plug_ins", lambda group: {"glow": (f"{__name__}:Glow",)} if "cond" in group else {})
    monkeypatch.setattr(derivation, "_files_of", lambda package: iter(()))
    asked = [f"encode_signals.conditions={json.dumps(made)}", 'train_diffusion.conditions={"glow": {}}']
    if says:
        with pytest.raises(ConfigError, match=says):
            resolve("world_model", profile="smoke", store=store, overrides=asked)
        return
    plan = resolve("world_model", profile="smoke", store=store, overrides=asked)
    assert plan.node("generate_diffusion").config["conditions"] == ["glow"], "they follow the training's"
    assert plan.node("generate_autoregressive").config["conditions"] == []
