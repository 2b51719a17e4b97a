"""Rules about the settings of curation's stages, one small function each; `check_settings.py` says of which stage."""

from collections.abc import Iterator
from pathlib import Path

from pipelines.asked import Asked


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
