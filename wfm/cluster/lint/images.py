"""Which image a container runs: by its digest, and one set of digests for everything that belongs together."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.seen import FOLLOWERS, STAGE_ROLES, Pod, Seen, at, rows, table, word
from wfm.cluster.names import ANNOTATION_CODE, LABEL_NODE, LABEL_RUN

_REFERENCE = re.compile(r"(?P<repository>[a-z0-9][^@\s]*?)(?P<tag>:[\w][\w.-]{0,127})?@sha256:(?P<digest>[0-9a-f]{64})")

_LOADERS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONPLATLIBDIR", "LD_PRELOAD", "LD_AUDIT")
"""Variables by which a process loads what its image does not name."""
_MAKERS = (*STAGE_ROLES, "stage", "planner", *FOLLOWERS)
"""Roles whose settings decide what is made."""
_CODE = ("/opt/wfm", "/opt/venv")
"""Where the images keep it (`images/Containerfile`)."""


@rule("image-digest", "every image is named by its digest")
def image_digest(seen: Seen) -> Iterator[Found]:
    """``repository@sha256:…``: a tag may be another image tomorrow."""
    for pod in seen.pods:
        for each in pod.containers:
            image = each.content.get("image")
            if not isinstance(image, str) or not _REFERENCE.fullmatch(image):
                says = "name it by its digest, repository@sha256:… with 64 digits: a tag may be another image tomorrow"
                yield Found(f"{each.where}.image", image, says)


@rule("image-set", "images of one repository are one image, and stages run in those of the settings")
def image_set(seen: Seen) -> Iterator[Found]:
    """Planner, launcher and stages are of one code only if they are of one set of digests."""
    images = {role: image for role, image in seen.settings.images.resolved().items() if image}
    first: dict[str, str] = {}
    for image in images.values():
        first.setdefault(_repository(image), image)
    for pod in seen.pods:
        wanted = _wanted(pod, images)
        for each in pod.containers:
            image = word(each.content, "image")
            if not _REFERENCE.fullmatch(image):
                continue
            told = each.value("WFM_IMAGE")
            if told and told != image and each is pod.main:
                says = f"the container runs {image}: the stage would record another image than made the artifact"
                yield Found(f"{each.where}.env[WFM_IMAGE]", told, says)
            known = first.setdefault(_repository(image), image)
            if known != image:
                says = f"another object or the settings of the cluster have {known}: name one image in all of them"
                yield Found(f"{each.where}.image", image, says)
            elif wanted and each is pod.main and image not in wanted.values():
                listed = ", ".join(f"{role} {one}" for role, one in wanted.items())
                yield Found(f"{each.where}.image", image, f"the settings of the cluster have {listed}: choose that")
    for thing in seen.of("DaskJob"):
        mains = {word(pod.main.content, "image") for pod in seen.pods_of(thing) if pod.main}
        if len(mains) > 1 and all(map(_REFERENCE.fullmatch, mains)) and len({*map(_repository, mains)}) > 1:
            says = "runner, scheduler and workers hand each other functions: give them one image"
            yield Found(thing.where("spec"), sorted(mains), says)


@rule("outside-code", "what runs is what the image holds")
def outside_code(seen: Seen) -> Iterator[Found]:
    """The code id speaks of the image: nothing is loaded from a variable's path, a ConfigMap or a mount in its place."""
    for pod in seen.pods:
        if pod.role == "other":
            continue
        for each in pod.containers:
            for name in _LOADERS:
                if name in each.env:
                    says = "another code would run than the key names: leave it out, and build an image"
                    yield Found(f"{each.where}.env[{name}]", each.env[name].get("value", "(from elsewhere)"), says)
            for place, source in rows(each.content, "envFrom"):
                if "configMapRef" in source and pod.role in _MAKERS:
                    says = "whoever edits it changes what runs, and no key knows: name variables one by one"
                    yield Found(f"{each.where}.envFrom.{place}.configMapRef", at(source, "configMapRef.name"), says)
            for place, mount in rows(each.content, "volumeMounts"):
                path = PurePosixPath(word(mount, "mountPath") or ".")
                if any(path.is_relative_to(code) or PurePosixPath(code).is_relative_to(path) for code in _CODE):
                    says = f"it hides the image's own code ({', '.join(_CODE)}): mount it elsewhere"
                    yield Found(f"{each.where}.volumeMounts.{place}.mountPath", str(path), says)
        for place, artifact in rows(pod.content, "inputs.artifacts"):
            foreign = sorted({"git", "http", "raw", "artifactory", "hdfs"} & set(artifact))
            if foreign:
                says = "what a pod reads comes from its image or the store, by key: leave it out"
                yield Found(pod.where(f"inputs.artifacts.{place}.{foreign[0]}"), word(artifact, "name"), says)


@rule("code", "what belongs to one stage names one code")
def code(seen: Seen) -> Iterator[Found]:
    """The code id of a job and of its pods, and of all jobs of a node of a run, is one: another would make other keys."""
    by_node: dict[tuple[str, str], str] = {}
    for thing in seen.things:
        own = table(thing.content, "metadata.annotations").get(ANNOTATION_CODE)
        labels = table(thing.content, "metadata.labels")
        node = (str(labels.get(LABEL_RUN)), str(labels.get(LABEL_NODE)))
        known = by_node.setdefault(node, own) if LABEL_NODE in labels and isinstance(own, str) else own
        if known != own:
            says = f"another job of node {node[1]} has {known!r}: plan both with one image set"
            yield Found(thing.where(f"metadata.annotations[{ANNOTATION_CODE}]"), own, says)
        for pod in seen.pods_of(thing):
            value = table(pod.metadata, "annotations").get(ANNOTATION_CODE)
            if value is not None and value != own:
                says = f"the job itself has {own!r}: they are one stage, and run one code"
                yield Found(thing.where(f"{pod.metadata_path}.annotations[{ANNOTATION_CODE}]"), value, says)


def _wanted(pod: Pod, images: dict[str, str]) -> dict[str, str]:
    """The images of the settings that fit a pod's role."""
    roles = {"rank": ("training",), "launcher": ("control",), "planner": ("control",)}.get(pod.role)
    if roles is None:
        return images if pod.role in STAGE_ROLES else {}
    return {role: image for role, image in images.items() if role in roles}


def _repository(image: str) -> str:
    found = _REFERENCE.fullmatch(image)
    return found["repository"] if found else image
