"""What a pod may do on its machine and against the cluster: as little as it needs."""

import json
import re
from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.seen import WORKFLOWS, Container, Pod, Seen, at, rows, table, texts, word
from wfm.credentials import SECRET_OPTION, carries_credentials, fixed_keys, names_credential

_CAPABILITIES = ("IPC_LOCK",)
"""RDMA pins memory; nothing of ours needs more."""
_SECRET_NAME = re.compile(r"(?i)secret|token|passw|credential|api_?key|(access|private|account)_?key(?!_?(path|file))")
_HARMLESS_NAME = re.compile(r"(?i)(_file|_path|_dir|_name|_arn|_url|_uri)$|^tokenizers_")
_SECRET_VALUE = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY|\bgh[pousr]_[A-Za-z0-9]{30,}|\bhf_[A-Za-z0-9]{30,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}|\bxox[bpars]-[A-Za-z0-9-]{10,}|\bglpat-[A-Za-z0-9_-]{20,}|\beyJ[\w-]{10,200}\.eyJ[\w-]{10}"
)
_SECRET_OPTION = re.compile(r"(?i)--?[\w-]*(token|password|passwd|secret|api[-_]?key|access[-_]?key)")
_SCHEME, _HOST = 20, 300
_HIDDEN = "(not shown)"


@rule("root-user", "no process is root")
def root_user(seen: Seen) -> Iterator[Found]:
    """``runAsNonRoot: true`` at the pod or the container, and no user 0 anywhere."""
    for pod in seen.pods:
        for each in pod.containers:
            if _security(pod, each, "runAsNonRoot") is not True and not _elsewhere(pod, each):
                says = "the container may run as root: set runAsNonRoot: true on the pod, and no other value here"
                yield Found(f"{each.where}.securityContext.runAsNonRoot", _security(pod, each, "runAsNonRoot"), says)
            for name in ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"):
                given = _security(pod, each, name)
                if 0 in (given if isinstance(given, list) else [given]):
                    says = "0 is root: give the number of the image's own user, or leave it out"
                    yield Found(f"{each.where}.securityContext.{name}", given, says)


@rule("privileges", "no process gets more rights than it starts with")
def privileges(seen: Seen) -> Iterator[Found]:
    """No escalation, not privileged, all capabilities dropped."""
    for pod in seen.pods:
        for each in pod.containers:
            context = table(each.content, "securityContext")
            base = f"{each.where}.securityContext"
            if context.get("allowPrivilegeEscalation") is not False and not _elsewhere(pod, each):
                yield Found(
                    f"{base}.allowPrivilegeEscalation", context.get("allowPrivilegeEscalation"), "set it to false"
                )
            if context.get("privileged"):
                yield Found(
                    f"{base}.privileged", context["privileged"], "the machine would be the container's: leave it out"
                )
            for name in ("sysctls", "seLinuxOptions"):
                if _security(pod, each, name):
                    says = "it changes the machine's own rules: leave it out"
                    yield Found(f"{base}.{name}", _security(pod, each, name), says)
            if word(context, "procMount") not in ("", "Default"):
                yield Found(f"{base}.procMount", context["procMount"], "leave it out")
            capabilities = table(context, "capabilities")
            dropped = capabilities.get("drop")
            if not (isinstance(dropped, list) and "ALL" in dropped) and not _elsewhere(pod, each):
                yield Found(f"{base}.capabilities.drop", dropped, 'give ["ALL"]')
            added = capabilities.get("add") or []
            more = [one for one in added if one not in _CAPABILITIES] if isinstance(added, list) else added
            if more:
                says = f"no stage needs these; choices: {', '.join(_CAPABILITIES)} (RDMA), or none"
                yield Found(f"{base}.capabilities.add", more, says)


@rule("writable-root", "the root of each container is read-only")
def writable_root(seen: Seen) -> Iterator[Found]:
    """``readOnlyRootFilesystem: true``."""
    for pod in seen.pods:
        for each in pod.containers:
            context = table(each.content, "securityContext")
            if context.get("readOnlyRootFilesystem") is not True and not _elsewhere(pod, each):
                says = "set it to true: what a stage writes lies on volumes that are counted, and its code stays what it is"
                yield Found(
                    f"{each.where}.securityContext.readOnlyRootFilesystem", context.get("readOnlyRootFilesystem"), says
                )


@rule("seccomp", "the kernel's calls are filtered")
def seccomp(seen: Seen) -> Iterator[Found]:
    """A profile of RuntimeDefault or Localhost, at the pod or the container."""
    for pod in seen.pods:
        for each in pod.containers:
            profile = _security(pod, each, "seccompProfile")
            kind = at(profile, "type")
            if kind not in ("RuntimeDefault", "Localhost") and not _elsewhere(pod, each):
                says = "give RuntimeDefault (or Localhost with a profile)"
                yield Found(f"{each.where}.securityContext.seccompProfile.type", kind, says)


@rule("host-access", "no pod reaches into its machine")
def host_access(seen: Seen) -> Iterator[Found]:
    """No network, processes, ports or folders of the host."""
    for pod in seen.pods:
        for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            if pod.content.get(name):
                yield Found(pod.where(name), pod.content[name], "pods keep to their own: leave it out")
        for place, volume in rows(pod.content, "volumes"):
            if "hostPath" in volume:
                says = "a folder of the machine is shared with whoever else runs there: use an emptyDir, or the store"
                yield Found(pod.where(f"volumes.{place}.hostPath"), volume["hostPath"], says)
        for each in pod.containers:
            for place, port in rows(each.content, "ports"):
                if port.get("hostPort"):
                    says = "only one such pod fits on a machine: leave it out"
                    yield Found(f"{each.where}.ports.{place}.hostPort", port["hostPort"], says)


_TALKERS = ("launcher", "pipeline", "scaler", "other")
"""Roles that ask the API of Kubernetes."""


@rule("api-token", "a stage, and a server, has no token for the API of Kubernetes")
def api_token(seen: Seen) -> Iterator[Found]:
    """Not mounted by default, nor by a projected volume; one for another audience (web identity) may be."""
    for pod in seen.pods:
        given = pod.content.get("automountServiceAccountToken")
        if pod.role in ("launcher", "pipeline", "scaler") and given is False:
            yield Found(pod.where("automountServiceAccountToken"), given, "true: without a token it can make no job")
        if pod.role in _TALKERS:
            continue
        flow = WORKFLOWS.get(pod.owner.kind)
        if flow and not word(pod.owner.content, f"{flow}.executor.serviceAccountName"):
            says = "name an account for argoexec, which tells of outputs: then the pod's own containers need no token"
            yield Found(pod.owner.where(f"{flow}.executor.serviceAccountName"), None, says)
        if given is not False and not (pod.half == "job" and given is None):
            says = "set it to false: a stage needs the store, and nothing of Kubernetes"
            yield Found(pod.where("automountServiceAccountToken"), given, says)
        for place, volume in rows(pod.content, "volumes"):
            for number, source in rows(volume, "projected.sources"):
                if "serviceAccountToken" in source and not word(source, "serviceAccountToken.audience"):
                    path = f"volumes.{place}.projected.sources.{number}.serviceAccountToken"
                    yield Found(
                        pod.where(path), source["serviceAccountToken"], "a stage has no use for it: take it out"
                    )


@rule("literal-secret", "no secret stands in an object")
def literal_secret(seen: Seen) -> Iterator[Found]:
    """Neither as the value of a variable that is called one, nor as any text that looks like one."""
    for pod in seen.pods:
        for each in pod.containers:
            for place, entry in rows(each.content, "env"):
                if _is_secret(word(entry, "name"), word(entry, "value")):
                    says = f"{word(entry, 'name')} stands here for all to read: use valueFrom.secretKeyRef or envFrom.secretRef"
                    yield Found(f"{each.where}.env.{place}.value", _HIDDEN, says)
            for place, option in enumerate(each.words[:-1]):
                if _SECRET_OPTION.fullmatch(option) and not each.words[place + 1].startswith(("-", "/", "$(", "{{")):
                    yield Found(
                        f"{each.where}.command[{option}]",
                        _HIDDEN,
                        "it stands here for all to read: use a variable of a Secret",
                    )
    for thing in seen.things:
        if thing.kind == "Secret":
            for name in ("data", "stringData"):
                if table(thing.content, name):
                    says = "base64 is no cipher: make the Secret on the cluster, and name it in objects"
                    yield Found(thing.where(name), _HIDDEN, says)
            continue
        for name, value in table(thing.content, "data").items() if thing.kind == "ConfigMap" else ():
            if isinstance(value, str) and _is_secret(name, value):
                yield Found(
                    thing.where(f"data[{name}]"), _HIDDEN, "it stands here for all to read: keep it in a Secret"
                )
        for path, text in texts(thing.content):
            if _SECRET_VALUE.search(text) or any(map(_is_signed, {word for word in text.split() if "://" in word})):
                if re.search(r"\.env\.\d+\.value$", path) and _named_secret(thing.content, path):
                    continue
                says = "this looks like a key or a password, for all to read: keep it in a Secret, and name that"
                yield Found(thing.where(path), _HIDDEN, says)


def _is_signed(address: str) -> bool:
    """Whether an address has a user or a signature in it. Its beginning is enough to find the user: it may be very long."""
    start = max(0, address.index("://") - _SCHEME)
    return carries_credentials(address[start : start + _HOST]) or any(
        names_credential(each.partition("=")[0]) for each in re.split(r"[?&;#]", address)[1:] if "=" in each
    )


def _named_secret(content: dict[str, Any], path: str) -> bool:
    """Whether the variable at ``….value`` was told of by its name already."""
    entry = at(content, path.removesuffix(".value"))
    return _is_secret(word(entry, "name"), word(entry, "value"))


def _is_secret(name: str, value: str) -> bool:
    if not value:
        return False
    if _SECRET_NAME.search(name) and not _HARMLESS_NAME.search(name):
        if re.search(r"(?i)tokens$", name) and value.isdecimal():
            return False  # how many, such as MAX_TOKENS
        return value.lower() not in ("0", "1", "true", "false") and not value.startswith(("/", "$(", "{{"))
    try:
        options = json.loads(value) if value.startswith("{") else None
    except (ValueError, RecursionError):
        return False
    return isinstance(options, dict) and (
        bool(fixed_keys({**options, "client_kwargs": table(options, "client_kwargs")}))
        or any(isinstance(each, str) and each and SECRET_OPTION.search(str(option)) for option, each in options.items())
    )


def _elsewhere(pod: Pod, container: Container) -> bool:
    """Whether the security context stands in the runtime that a TrainJob refers to."""
    return pod.half == "job" and "securityContext" not in container.content


def _security(pod: Pod, container: Container, name: str) -> Any:
    """A field of the security context: the container's, else the pod's."""
    own = table(container.content, "securityContext")
    return own[name] if name in own else table(pod.content, "securityContext").get(name)
