"""What training reads: latents, and the signals and text of the same samples, which are artifacts of their own.

The latents say which samples there are and in what order. Signals and text are joined to them by clip, first frame and mirror;
they may hold more than that (other splits, other clips), never less: a sample without its signals or text is refused. Several
latents are as many sources, which must fit together: one tokenizer, one kind of statistics, one meaning of signals and text.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.actions import ActionSpec
from wfm.conditions.condition import Condition, action_spec
from wfm.data.captions import read_text
from wfm.data.encoded_samples import EncodedSamples, encoded_samples, require_samples
from wfm.data.passes import close_all
from wfm.data.reading.config import ReadingConfig
from wfm.data.samples import Samples
from wfm.data.signals import MEANINGS, merge_meanings, read_signals
from wfm.errors import ConfigError
from wfm.training.joined import JoinedSamples, Signals, Text
from wfm.training.sessions import require_apart

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

LATENTS = "latents"
_IMAGES_FPS = 24.0  # of a model that sees images alone, where no rate means anything


@dataclass(frozen=True)
class Source:
    """The artifacts that one source of samples is read from."""

    latents: "Artifact"
    signals: "Artifact | None" = None
    text: "Artifact | None" = None


def sources_of(inputs: "Mapping[str, Artifact]") -> dict[str, Source]:
    """The sources among a stage's inputs, by name: `latents`, or several `latents_<name>`, each with `signals_<name>` and
    `text_<name>`, or where there is none such with `signals` and `text`. Raises ConfigError without any latents, and for
    signals or text that are of none."""
    names = [name for name in inputs if name == LATENTS or name.startswith(f"{LATENTS}_")]
    if not names:
        raise ConfigError("no latents are given: give latents, or several as latents_<name>")
    ends = {name.removeprefix(LATENTS) for name in names} | {""}
    stray = [
        name for name in inputs for kind in ("signals", "text")
        if name.startswith(f"{kind}_") and name.removeprefix(kind) not in ends
    ]  # fmt: skip
    if stray:
        raise ConfigError(f"{', '.join(stray)}: of no latents; given are {', '.join(names)}")
    found = {}
    for name in names:
        end = name.removeprefix(LATENTS)
        signals, text = (inputs.get(f"{kind}{end}", inputs.get(kind)) for kind in ("signals", "text"))
        found[name] = Source(inputs[name], signals, text)
    return found


@dataclass
class Encoded:
    """What the encoding left: samples of each split by source, statistics and the meaning of the actions."""

    train: Mapping[str, Samples]
    val: Mapping[str, Samples]
    "Empty where none was encoded."
    statistics: dict[str, Any]
    action_spec: ActionSpec
    fps: float
    "Mean over the training samples that are video [1/s]."
    extrapolate_from: int = 0
    "Frames that the samples' `extrapolated` was made from; 0: they have none."
    rates: tuple[float, float] | None = None
    "The slowest and the fastest of the training samples [1/s]; None: all are of `fps`."
    text_width: int = 0
    "Of one token's embedding of the captions; 0: they were not encoded."
    action_range: dict[str, list[float]] | None = None
    "Least and greatest value of each action in the training samples (`ActionSpec.range_of`); None without actions."
    text: dict[str, Any] | None = None
    "Which encoder made the captions' embeddings (encoder, identity, max_length, dtype); None: they were not encoded."
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    "What the model is conditioned on besides, as the data describe it."
    own: Mapping[str, Condition] = field(default_factory=dict)
    """Conditions that the network's configuration has fields for, as the data describe them; of one that another replaces, what
    it is without data."""
    shares: Mapping[str, float] = field(default_factory=dict)
    "Of all samples drawn, those of each source; empty: alike."

    def close(self) -> None:
        """Nothing of the samples is read any more."""
        close_all(*self.train.values(), *self.val.values())

    def weights(self) -> dict[str, float]:
        """What one sample of each source counts for in a sum over all, so that sources count as they are drawn; the mean over
        samples is 1."""
        total = sum(len(samples.ids) for samples in self.train.values())
        return {
            name: self.shares.get(name, 1 / len(self.train)) * total / len(samples.ids) if len(self.train) > 1 else 1.0
            for name, samples in self.train.items()
        }


def read_encoded(
    sources: "Mapping[str, Source] | Artifact",
    conditions: Mapping[str, Condition] | None = None,
    own: Mapping[str, Condition] | None = None,
    shares: Mapping[str, float] | None = None,
    reading: ReadingConfig | None = None,
    *,
    shared_sessions: str = "allow",
) -> Encoded:
    """Open encoded samples with what goes with them; nothing of a sample is read. `sources`: or the one latents artifact alone.
    `conditions`, and those that the network has fields of its `own` for, read theirs of the signals. `shared_sessions`: as
    `DataConfig` has it.

    Raises DataError when a source has no training samples, or one of them lacks its signals or text, ConfigError and InputError
    for sources that do not fit together.
    """
    if not isinstance(sources, Mapping):
        sources = {LATENTS: Source(sources)}
    shares = shares or dict.fromkeys(sources, 1 / len(sources))
    require_alike(sources)
    described = described_of(sources.values())
    meanings = {name: one["meaning"] for name, one in described.items()}
    extrapolate_from = max(_config(one, "extrapolate_from", 0) for one in sources.values())
    known = {**meanings, "extrapolated": {"given_frames": extrapolate_from}}
    more, own_described = (
        {name: one.described(known) for name, one in (which or {}).items()} for which in (conditions, own)
    )
    replaced = {name for one in more.values() for name in one.replaces}
    readers = [*more.values(), *own_described.values()]
    opened = {name: require_samples(one.latents, "train", reading) for name, one in sources.items()}
    rates = {name: samples.table.numbers("fps") for name, samples in opened.items()}
    fps = mean_rate(rates, shares)
    train = {name: joined(one, opened[name], fps, described, readers) for name, one in sources.items()}
    held = {
        name: samples
        for name, one in sources.items()
        if (samples := encoded_samples(one.latents, "val", reading)) is not None
    }
    if shared_sessions == "refuse":
        drawn = {name: samples.table for name, samples in opened.items() if shares[name]}
        require_apart(drawn, {name: samples.table for name, samples in held.items()})
    val = {name: joined(sources[name], samples, fps, described, readers) for name, samples in held.items()}
    seen = [of[of > 0] for of in rates.values()]
    texts = [one.text for one in sources.values() if one.text is not None]
    return Encoded(
        train,
        val,
        blended({name: statistics_of(one.latents) for name, one in sources.items()}, shares),
        action_spec(meanings),
        fps,
        extrapolate_from,
        (min(map(np.min, filter(len, seen)), default=fps), max(map(np.max, filter(len, seen)), default=fps)),
        max(samples.text_width for samples in train.values()),
        range_of_actions(train.values(), action_spec(meanings)),
        texts[0].manifest.extra["text"] if texts else None,
        more,
        {name: one if name in replaced else own_described[name] for name, one in (own or {}).items()},
        shares,
    )


def joined(
    source: Source,
    samples: EncodedSamples,
    fps: float,
    described: Mapping[str, Mapping[str, Any]],
    conditions: Iterable[Condition],
) -> JoinedSamples:
    """Samples with what goes with them."""
    split = samples.split
    signals, text = Signals(None, described), None
    if source.signals is not None:
        signs = source.signals.manifest.config.get("mirror_signs", {})
        signals = Signals(read_signals(source.signals, split), described, source.signals.key, signs)
    if source.text is not None:
        clips, mirrored = samples.table.column("clip_id"), samples.table.numbers("mirrored")
        text = Text(read_text(source.text, split, clips, mirrored), source.text.key)
    return JoinedSamples(samples, samples.table, fps, signals=signals, text=text, conditions=conditions)


def require_alike(sources: Mapping[str, Source]) -> None:
    """Raise ConfigError, naming source and field, unless all sources were encoded by one tokenizer, with statistics of one
    kind, and all have text of one encoder or none."""
    facts: dict[str, Callable[[Source], Any]] = {
        "the tokenizer's weights": lambda one: tokenizer_weights(one.latents),
        "statistics_frames": lambda one: _config(one, "statistics_frames", None),
        "the encoder of the text": lambda one: None if one.text is None else one.text.manifest.extra["text"],
    }
    (first, reference), *others = sources.items()
    for what, of in facts.items():
        for name, one in others:
            if of(one) != of(reference):
                raise ConfigError(
                    f"{name} and {first} differ in {what}: {_short(of(one))}, {_short(of(reference))}; a training takes "
                    "latents that were encoded alike"
                )
    made = {name: given for name, one in sources.items() if (given := _config(one, "extrapolate_from", 0))}
    if len(set(made.values())) > 1:
        raise ConfigError(f"extrapolate_from differs between latents: {made}; encode them from as many frames")


def tokenizer_weights(latents: "Artifact") -> Any:
    """(path, sha256) of each file of the tokenizer that encoded latents, or its key where the parts do not say."""
    for entry in latents.iterate_parts():
        told = latents.open_part(entry).manifest.extra.get("inputs", {})
        if "tokenizer" in told:
            return [list(one) for one in told["tokenizer"]]
        break
    return latents.manifest.inputs.get("tokenizer")


def _config(source: Source, name: str, default: Any) -> Any:
    return source.latents.manifest.config.get(name, default)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:120]}..."


def described_of(sources: Iterable[Source]) -> dict[str, Mapping[str, Any]]:
    """Shape and meaning of each signal of the sources. Raises InputError where two mean different things by one name."""
    artifacts = [one.signals for one in sources if one.signals is not None]
    return merge_meanings(json.loads(one.fetch(MEANINGS).read_text()) for one in artifacts)


def mean_rate(rates: Mapping[str, np.ndarray], shares: Mapping[str, float]) -> float:
    """The mean over samples that are video, each source with its share of them [1/s]."""
    video = {name: (of[of > 0], shares[name] * float((of > 0).mean())) for name, of in rates.items()}
    seen = {name: (of, share) for name, (of, share) in video.items() if share}
    if not seen:
        return _IMAGES_FPS
    return fmean([float(of.mean()) for of, _ in seen.values()], [share for _, share in seen.values()])


def statistics_of(latents: "Artifact") -> dict[str, Any]:
    """Mean and deviation of latents, `[C][f]` each; empty for tokens."""
    found: dict[str, Any] = json.loads(latents.fetch("latent_statistics.json").read_text())
    return found


def blended(statistics: Mapping[str, Mapping[str, Any]], shares: Mapping[str, float]) -> dict[str, Any]:
    """Statistics of samples that are drawn of several sources at these shares: of a source whose windows have no such latent
    frame (images), nothing enters the later columns. Those of which nothing is drawn count alike where no others have one."""
    if len(statistics) == 1:
        return dict(next(iter(statistics.values())))
    columns = max((len(row) for one in statistics.values() for row in one["mean"][:1]), default=0)
    mean, std = [], []
    for column in range(columns):
        having = {name: one for name, one in statistics.items() if one["mean"] and len(one["mean"][0]) > column}
        share = np.array([shares[name] for name in having])[:, None]
        share = share / share.sum() if share.any() else np.full_like(share, 1 / len(having))
        means, stds = (
            np.array([[row[column] for row in one[what]] for one in having.values()]) for what in ("mean", "std")
        )
        middle = (share * means).sum(0)
        mean.append(middle)
        std.append(np.sqrt((share * (stds**2 + (means - middle) ** 2)).sum(0)))
    return {"mean": np.transpose(mean).tolist(), "std": np.transpose(std).tolist()}


def range_of_actions(sources: Iterable[JoinedSamples], spec: ActionSpec) -> dict[str, list[float]] | None:
    """`ActionSpec.range_of` over all samples that have actions; None where none has."""
    found = [bounds for samples in sources if (bounds := samples.signal_range("actions")) is not None]
    if not found or not spec.width:
        return None
    low, high = (reduce(of, (bounds[i] for bounds in found)) for i, of in ((0, np.minimum), (1, np.maximum)))
    return spec.range_of(spec.normalise(np.stack([low, high])))
