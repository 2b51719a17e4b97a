"""What nodes need to run, from the table, the profile and ``--set``: devices of the curation, and the fields that follow them.

A profile says it by node (``"split_clips": {"resources": {"replicas": 32}}``), and of a cluster as a whole in its section
``cluster``; ``--set split_clips.resources.replicas=32`` and ``--set cluster.gpu_curation=true`` say the same for one run. No
key knows of any of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pipelines.nodes import Node
from pipelines.stages import Resources
from wfm.config import Config, assign, parse_assignment
from wfm.errors import ConfigError

SectionT = TypeVar("SectionT", bound=Config)
CLUSTER = "cluster"
"""The section of a profile, and the first word of a setting, that is of no node."""
NEEDS = "resources"
"""Under which a recipe, or a setting, says what a node needs."""
GPU_CURATION = ("split_clips", "score_clips", "embed_clips", "dedup_clips")
"""Stages of the curation that have a use for a device."""
DEVICE_FIELDS = {
    "split_clips": ("shots", "device"),
    "score_clips": ("device",),
    "caption_clips": ("local", "device"),
    "embed_clips": ("device",),
    "dedup_clips": ("device",),
}
"""Stage -> the field of its config that says where its arrays and networks are."""


class ClusterNeeds(Config):
    """What a profile says of all its nodes on a cluster."""

    gpu_curation: bool = False
    """The curation works on devices: each worker of split_clips, score_clips and embed_clips, and the pod of dedup_clips, has
    one (or as many as its own ``resources.gpu`` says), workers are those of ``dask cuda worker`` (extra gpu), and their
    ``device`` is cuda. Pictures are still decoded on the workers' cores: a device's decoder tells neither the motion vectors
    that scoring reads nor which pictures are damaged. Its library is in the pods all the same."""


class NodeNeeds(Config):
    """What a recipe or ``--set`` says of a node beside its config."""

    resources: Resources = Resources()


def section(
    settings: Mapping[str, dict[str, Any]], overrides: Sequence[str], name: str, kind: type[SectionT]
) -> tuple[SectionT, list[str]]:
    """A section of a profile that is of no node, as overrides make it, and the overrides that are left. Raises ConfigError for
    a field that it does not have."""
    said = dict(settings.get(name, {}))
    own = [text for text in overrides if parse_assignment(text)[0][0] == name]
    for text in own:
        path, value = parse_assignment(text)
        if len(path) < 2:
            raise ConfigError(f"override {text!r} names no field of {name}: {', '.join(kind.model_fields)}")
        assign(said, path[1:], value, kind)
    try:
        found = kind.parse(said)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    return found, [text for text in overrides if text not in own]


def apart(
    settings: Mapping[str, dict[str, Any]], overrides: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], ClusterNeeds, list[str]]:
    """(settings of each node's config, what each node needs, what is said of the cluster, the overrides of nodes). Raises
    ConfigError for a field that a cluster does not have."""
    cluster, overrides = section(settings, overrides, CLUSTER, ClusterNeeds)
    nodes = {name: of for name, of in settings.items() if name != CLUSTER}
    configs = {name: {key: value for key, value in of.items() if key != NEEDS} for name, of in nodes.items()}
    needs = {name: of[NEEDS] for name, of in nodes.items() if NEEDS in of}
    return configs, needs, cluster, overrides


def give_devices(nodes: Sequence[Node], cluster: ClusterNeeds) -> None:
    """Let the stages of the curation that have a use for it ask for a device, where the profile wants that."""
    for node in nodes:
        if cluster.gpu_curation and node.stage in GPU_CURATION and not node.resources.gpu:
            node.resources = node.resources.model_copy(update={"gpu": 1})


def follow_devices(nodes: Sequence[Node], said: Mapping[str, Mapping[str, Any]], overrides: Sequence[str]) -> None:
    """Let a stage that has a device work on it: its ``device`` becomes cuda, unless the profile (``said``: its settings by
    node) or an override says where."""
    for node in nodes:
        path = DEVICE_FIELDS.get(node.stage)
        if path is None or not node.resources.gpu or _holds(said.get(node.name, {}), path):
            continue
        if any(_says(text, name, path) for text in overrides for name in (node.name, node.stage)):
            continue
        *outer, field = path
        section: Any = node.config
        for name in outer:
            section = section.get(name) or {}  # a captioner that is not set has none
        section[field] = "cuda"


def _says(override: str, name: str, path: Sequence[str]) -> bool:
    """Whether an override gives a value at a path of a node's config, be it with all of a section."""
    steps, value = parse_assignment(override)
    whole = [name, *path]
    return whole[: len(steps)] == steps and _holds(value, whole[len(steps) :])


def _holds(values: Any, path: Sequence[str]) -> bool:
    """Whether a value is given at a path of plain values."""
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return False
        values = values[name]
    return True
