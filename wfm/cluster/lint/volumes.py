"""Where a pod writes, and what of it is memory: /dev/shm, home and caches, claims."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import amount
from wfm.cluster.lint.seen import WORKFLOWS, Container, Pod, Seen, at, rows, word, words

SHARED = "/dev/shm"
_HOMES = ("HOME", "WFM_CACHE")
_OF_OTHERS = ("notice", "captioning", "other")
"""Roles of pods whose program may be none of ours."""
_CACHES = (
    *("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "NUMBA_CACHE_DIR", "CUDA_CACHE_PATH"),
    *("CUPY_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR"),
)
"""Folders that are made again when lost. Where one is not named, a stage puts it below ``WFM_CACHE`` (`wfm.caches`)."""
_FROM_OUTSIDE = ("hostPath", "nfs", "persistentVolumeClaim", "ephemeral", "csi", "emptyDir")
_LONE_CLAIMS = {"ReadWriteOnce", "ReadWriteOncePod"}


def is_torch(pod: Pod, seen: Seen) -> bool:
    """Whether torch runs in it: a rank, what asks for a device, a stage in the training image."""
    if pod.role == "rank":
        return True
    training = seen.settings.images.training
    return pod.role in ("worker", "index", "captioning") and any(
        each.amount_of(kind, seen.settings.gpu_resource) is not None
        or (training and each.content.get("image") == training)
        for each in pod.lasting
        for kind in ("requests", "limits")
    )


@rule("shared-memory", "a pod with torch has a /dev/shm of memory")
def shared_memory(seen: Seen) -> Iterator[Found]:
    """An ``emptyDir`` of medium Memory, mounted there in the container that works. A pod's own is 64 MB: a bus error."""
    cure = "mount an emptyDir {medium: Memory, sizeLimit: ...} there: the pod's own of 64 MB ends in a bus error"
    for pod in seen.furnished:
        main = pod.main
        if main is None or not is_torch(pod, seen):
            continue
        mounts = [each for _, each in rows(main.content, "volumeMounts") if _clean(word(each, "mountPath")) == SHARED]
        if not mounts:
            yield Found(f"{main.where}.volumeMounts", None, f"nothing is mounted at {SHARED}: {cure}")
            continue
        if mounts[0].get("readOnly") or mounts[0].get("subPath"):
            yield Found(
                f"{main.where}.volumeMounts",
                mounts[0],
                f"{SHARED} is the whole volume, for reading and writing: {cure}",
            )
        volume = _volume(pod, word(mounts[0], "name"))
        if volume is None or at(volume, "emptyDir.medium") != "Memory":
            value = None if volume is None else volume.get("emptyDir", volume)
            yield Found(
                pod.where(f"volumes[{word(mounts[0], 'name')}].emptyDir.medium"), value, f"it is no memory: {cure}"
            )


@rule("memory-volume", "memory that is used as a disk has a size, and fits in the container's memory")
def memory_volume(seen: Seen) -> Iterator[Found]:
    """Of each ``emptyDir`` of medium Memory: it counts in the limit of whoever writes there."""
    for pod in seen.furnished:
        sizes = {}
        for place, volume in rows(pod.content, "volumes"):
            if at(volume, "emptyDir.medium") != "Memory":
                continue
            size = amount(at(volume, "emptyDir.sizeLimit"))
            where = pod.where(f"volumes.{place}.emptyDir.sizeLimit")
            if not size:
                says = "without a size it may take half of the machine's memory: give one, and count it in the limit"
                yield Found(where, at(volume, "emptyDir.sizeLimit"), says)
            else:
                sizes[word(volume, "name")] = (size, where, at(volume, "emptyDir.sizeLimit"))
        for each in pod.containers:
            limit = amount(each.amount_of("limits", "memory"))
            mounted = [sizes[name] for name in _mounted(each) if name in sizes]
            if limit and sum(size for size, _, _ in mounted) >= limit:
                says = (
                    f"what is written there counts as memory of container {word(each.content, 'name')}, whose limit is "
                    f"{each.amount_of('limits', 'memory')}: raise that limit above it, or lower this"
                )
                yield Found(mounted[-1][1], mounted[-1][2], says)


@rule("writable-folders", "with a read-only root, home and caches lie where they can be written")
def writable_folders(seen: Seen) -> Iterator[Found]:
    """HOME and WFM_CACHE are named, and they and every named cache lie on a volume; there is a place for temporary files."""
    for pod in seen.furnished:
        for each in pod.lasting:
            open_root = at(each.content, "securityContext.readOnlyRootFilesystem") is not True
            if open_root and not (pod.half == "job" and "securityContext" not in each.content):
                continue
            places = _writable(pod, each)
            listed = ", ".join(sorted(places)) or "none"
            for name in _HOMES if each.kind == "main" else ():
                if not each.value(name) and (name == "HOME" or pod.role not in _OF_OTHERS):
                    says = f"the root is read-only: name a folder on a volume that can be written (here: {listed})"
                    yield Found(f"{each.where}.env[{name}]", None, says)
            for name in (*_HOMES, *_CACHES):
                value = each.value(name)
                if value and not _below(value, places):
                    says = f"the root is read-only, and this lies on no volume that can be written (here: {listed})"
                    yield Found(f"{each.where}.env[{name}]", value, says)
            if not each.value("TMPDIR") and each.kind == "main" and not _below("/tmp", places):
                says = (
                    "temporary files have no place on a read-only root: mount an emptyDir at /tmp, or set TMPDIR to one"
                )
                yield Found(f"{each.where}.volumeMounts", None, says)


@rule("scratch-size", "what a pod may write to its machine's disk is bounded and asked for")
def scratch_size(seen: Seen) -> Iterator[Found]:
    """Every ``emptyDir`` has a size; ephemeral storage is asked for, and all of them together fit in its limit."""
    for pod in seen.furnished:
        total = 0.0
        for place, volume in rows(pod.content, "volumes"):
            if not isinstance(volume.get("emptyDir"), dict) or at(volume, "emptyDir.medium") == "Memory":
                continue
            size = amount(at(volume, "emptyDir.sizeLimit"))
            total += size or 0.0
            if not size:
                says = "give a size, such as 10Gi: a full disk of the machine evicts its neighbours too"
                yield Found(pod.where(f"volumes.{place}.emptyDir.sizeLimit"), at(volume, "emptyDir.sizeLimit"), says)
        main = pod.main
        if main is None or not total:
            continue
        for kind in ("requests", "limits"):
            given = [each.amount_of(kind, "ephemeral-storage") for each in pod.lasting]
            sizes = [amount(each) or 0.0 for each in given]
            if sum(sizes) < total:
                says = (
                    f"the pod's emptyDirs may hold {total / 2**30:.3g} GiB together: ask for that much, else it lands "
                    "on a disk that is too small and is evicted in the middle"
                )
                yield Found(
                    f"{main.where}.resources.{kind}.ephemeral-storage", main.amount_of(kind, "ephemeral-storage"), says
                )
                break


@rule("mounts", "what is mounted is there")
def mounts(seen: Seen) -> Iterator[Found]:
    """Each ``volumeMounts`` entry names a volume of the pod, and each volume says what it is."""
    for pod in seen.furnished:
        for place, volume in rows(pod.content, "volumes"):
            if not any(isinstance(each, dict) for each in volume.values()):
                says = "it does not say what it is: give it an emptyDir with a size, or another source"
                yield Found(pod.where(f"volumes.{place}"), volume, says)
        for each in pod.containers:
            for place, mount in rows(each.content, "volumeMounts"):
                name = word(mount, "name")
                if _volume(pod, name) is None and name not in _claimed(pod):
                    says = f"the pod has no such volume; it has {', '.join(_volumes(pod)) or 'none'}"
                    yield Found(f"{each.where}.volumeMounts.{place}.name", name, says)


@rule("lone-claim", "a claim of one machine is mounted by one pod")
def lone_claim(seen: Seen) -> Iterator[Found]:
    """ReadWriteOnce binds pods to one machine: the second waits for ever. Unknown claims count as such."""
    modes = {thing.name: set(words(thing.content, "spec.accessModes")) for thing in seen.of("PersistentVolumeClaim")}
    users: dict[str, list[tuple[Pod, str]]] = defaultdict(list)
    for pod in seen.furnished:
        for place, volume in rows(pod.content, "volumes"):
            claim = word(volume, "persistentVolumeClaim.claimName")
            if claim:
                users[claim].append((pod, pod.where(f"volumes.{place}.persistentVolumeClaim.claimName")))
    for claim, several in users.items():
        if modes.get(claim, _LONE_CLAIMS) - _LONE_CLAIMS or sum(pod.replicas for pod, _ in several) < 2:
            continue
        known = (
            "ReadWriteOnce"
            if claim in modes
            else "of a kind that is not known here (hand its PersistentVolumeClaim along)"
        )
        says = f"it is {known} and {sum(p.replicas for p, _ in several)} pods mount it: use the store, or a ReadWriteMany claim"
        yield Found(several[-1][1], claim, says)
    for thing in seen.of(*WORKFLOWS):
        base = WORKFLOWS[thing.kind]
        for place, made in rows(thing.content, f"{base}.volumeClaimTemplates"):
            name = word(made, "metadata.name")
            users_of = [pod for pod in seen.pods_of(thing) if any(name in _mounted(each) for each in pod.containers)]
            if not set(words(made, "spec.accessModes")) - _LONE_CLAIMS and len(users_of) > 1:
                says = f"{len(users_of)} templates mount it, each in a pod of its own: use the store, or ReadWriteMany"
                path = f"{base}.volumeClaimTemplates.{place}.spec.accessModes"
                yield Found(thing.where(path), at(made, "spec.accessModes"), says)


def can_write(pod: Pod, container: Container, folder: str) -> bool:
    """Whether a container can write to a folder: it lies on a volume that is mounted for that."""
    return _below(folder, _writable(pod, container))


def _clean(path: str) -> str:
    return str(PurePosixPath(path)) if path else ""


def _volumes(pod: Pod) -> list[str]:
    return [word(each, "name") for _, each in rows(pod.content, "volumes")]


def _volume(pod: Pod, name: str) -> dict[str, Any] | None:
    return next((each for _, each in rows(pod.content, "volumes") if word(each, "name") == name), None)


def _claimed(pod: Pod) -> list[str]:
    """Volumes that a workflow or a stateful set makes for its pods."""
    content = pod.owner.content
    paths = ("spec.volumeClaimTemplates", f"{WORKFLOWS.get(pod.owner.kind, 'spec')}.volumeClaimTemplates")
    return [word(each, "metadata.name") for path in paths for _, each in rows(content, path)]


def _mounted(container: Container) -> list[str]:
    return [word(each, "name") for _, each in rows(container.content, "volumeMounts")]


def _writable(pod: Pod, container: Container) -> list[str]:
    """Where the container can write: mounts of volumes that are no memory file system of /dev/shm, nor read-only."""
    found = []
    for _, mount in rows(container.content, "volumeMounts"):
        volume = _volume(pod, word(mount, "name")) or {}
        kinds = [name for name in _FROM_OUTSIDE if name in volume]
        open_ = bool(kinds) and not mount.get("readOnly") and not at(volume, f"{kinds[0]}.readOnly")
        if (open_ or word(mount, "name") in _claimed(pod)) and _clean(word(mount, "mountPath")) != SHARED:
            found.append(_clean(word(mount, "mountPath")))
    return found


def _below(path: str, places: list[str]) -> bool:
    parts = PurePosixPath(path)
    return ".." not in parts.parts and any(parts.is_relative_to(place) for place in places)
