"""Why a stage of a run ran, or did not: its key against the nearest earlier one, part by part.

A key is made from code, config, inputs, external inputs, and a redo nonce (`components/derivation.py`). Every run's
spec holds these parts for each node; the nearest earlier one is the run whose key of that node differs in the fewest, among
the newest that were made before.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.runs.state import NodeState, RunState, read_state
from wfm.artifacts.invalidation import tombstones
from wfm.errors import ConfigError, InputError, WfmError, did_you_mean

if TYPE_CHECKING:
    from pipelines.nodes import Node, Plan
    from wfm.artifacts import Store
    from wfm.artifacts.manifest import Manifest
    from wfm.artifacts.runs import Run

_RUNS_LOOKED_AT, _READS_AT_ONCE = 50, 8
_SHOWN = 12
_FEW = 3
_HASH = 64
_ABSENT = object()
"In place of an option that one key does not have: it is neutral there, or there was no such option."
_FILES = "new, changed or removed files"


@dataclass
class Difference:
    """What differs between two keys of one node."""

    config: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    inputs: dict[str, tuple[str, str]] = field(default_factory=dict)
    code: tuple[str, str] | None = None
    modules: list[str] = field(default_factory=list)
    redo: bool = False
    external_inputs: bool = False
    "Nothing else differs, and yet the key does."

    def __len__(self) -> int:
        return len(self.config) + len(self.inputs) + (self.code is not None) + self.redo + self.external_inputs


def explain_node(store: "Store", run: "Run", name: str) -> list[str]:
    """The explanation, line by line. Raises `InputError` for a node that the run does not have."""
    spec = run.spec()
    nodes = {node["name"]: node for node in _nodes(spec)}
    if name not in nodes:
        raise InputError(f"run {run.id} has no stage {name!r}.{did_you_mean(name, nodes)} Choices: {', '.join(nodes)}")
    state = read_state(run)
    now = state.nodes.get(name) if state is not None else None
    lines = list(_what_happened(store, run, name, nodes[name], state, now))
    if now is not None and (now.state == "cached" or (now.state == "done" and _other_maker(store, now.key, run.id))):
        return lines
    earlier = _nearest(store, run, name, nodes[name])
    if earlier is None:
        return [
            *lines,
            f"No earlier run (of the newest {_RUNS_LOOKED_AT}) has this stage: there was nothing to compare with.",
        ]
    before, found, difference = earlier
    lines.append(f"Nearest earlier one: run {before.id}, key {str(found['key'])[:12]}.")
    if not len(difference):
        return [*lines, *_same_key(store, before, name)]
    return [*lines, *_described(difference, found, nodes[name])]


def _what_happened(
    store: "Store", run: "Run", name: str, node: Mapping[str, Any], state: RunState | None, now: NodeState | None
) -> Iterator[str]:
    key = str((now.key if now is not None else "") or node["key"] or "")
    if now is None:
        yield f"{name} of run {run.id} was planned; the run never began."
    elif now.state == "cached":
        yield f"{name} did not run: {key[:12]} was committed already{_committed_by(store, key)}{_gone(store, key)}."
        yield "Same code, same options, same inputs: making it again would give the same."
        return
    elif now.state == "done" and (maker := _other_maker(store, key, run.id)):
        yield f"{name} did not make {key[:12]}: run {maker} did{_gone(store, key)}, and this run took what it found."
        return
    elif now.state == "waiting":
        yield f"{name} has not begun: {now.why or 'its turn had not come'}."
    elif now.state == "not_run":
        yield f"{name} did not run: {now.reason}."
    else:
        tries = f" in {now.attempts} tries" if now.attempts > 1 else ""
        yield f"{name} ran{tries} and is {now.state}{': ' + now.reason if now.reason else ''}. Key {key[:12]}."
    waited = [source for source in dict.fromkeys(node["sources"].values()) if state and _was_made(state, source)]
    if waited:
        yield f"It follows {', '.join(waited)}, made in the same run."


def _other_maker(store: "Store", key: str, run_id: str) -> str:
    """The run that made an artifact, if it is another than this one; empty where nobody knows."""
    try:
        made_by = str(store.artifact(key).manifest.extra.get("run_id", ""))
    except WfmError:
        return ""
    return made_by if made_by != run_id else ""


def _gone(store: "Store", key: str) -> str:
    """``, which was invalidated at ...: reason`` where it was, else nothing."""
    stone = store.tombstone(key) if key else None
    return f", which {stone.described()}" if stone is not None else ""


def _was_made(state: RunState, name: str) -> bool:
    return name in state.nodes and state.nodes[name].state == "done"


def _committed_by(store: "Store", key: str) -> str:
    try:
        manifest = store.artifact(key).manifest
    except WfmError:
        return ""
    run = manifest.extra.get("run_id")
    return f" by run {run} at {manifest.created_at}" if run else f" at {manifest.created_at}"


def reasons(plan: "Plan", store: "Store") -> dict[str, str]:
    """Node -> why it would run, against its latest artifact in the store: which option, input or code is another, or why the
    artifact itself does not count any more. Nodes without an artifact have none."""
    latest = _latest(plan, store)
    found = {}
    for node in plan.missing:
        stone = store.tombstone(node.key) if node.key else None
        if stone is not None:
            found[node.name] = f"{(node.key or '')[:12]} {stone.described()}"
        elif node.name in latest:
            found[node.name] = _against(plan, node, latest[node.name], store)
    return found


def _latest(plan: "Plan", store: "Store") -> "dict[str, Manifest]":
    """The newest artifact of each node that would run, by what its manifest says."""
    wanted = {node.name: node.stage for node in plan.missing}
    found: dict[str, Manifest] = {}
    for key in store.committed_keys():
        try:
            manifest = store.artifact(key).manifest
        except WfmError:  # damaged: says nothing
            continue
        name = str(manifest.extra.get("node", manifest.stage))
        newer = name not in found or found[name].created_at < manifest.created_at
        if wanted.get(name) == manifest.stage and newer:
            found[name] = manifest
    return found


def _against(plan: "Plan", node: "Node", manifest: "Manifest", store: "Store") -> str:
    """The differences in one line."""
    from pipelines.nodes import code_of, config_class, modules_of

    config = config_class(node.component)
    try:
        what = config.parse(manifest.config).what()
    except ConfigError:  # of an older wfm, with fields of other names
        what = manifest.config
    before = {
        "what": what, "inputs": dict(manifest.inputs), "code_id": manifest.code_id, "component": node.component,
        "key": manifest.key,
    }  # fmt: skip
    after = {
        "what": config.parse(node.config).what(), "inputs": plan.input_keys(node), "code_id": code_of(node),
        "component": node.component, "key": node.key, "redo": node.redo,
    }  # fmt: skip
    difference = compare(before, after, {}, {})
    words = [f"{path}: {_text(old)} -> {_text(new)}" for path, (old, new) in difference.config.items()]
    if difference.code is not None:
        now = {module: digest[:16] for module, digest in modules_of(node).items()}
        old = _modules_of_run(store, str(manifest.extra.get("run_id", "")), node.name)
        changed = sorted(module for module in {*old, *now} if old.get(module) != now.get(module)) if old else []
        which = f" ({', '.join(changed[:_FEW])}{' ...' if len(changed) > _FEW else ''})" if changed else ""
        words.append(f"code: {_code_words(*difference.code)}{which}")
    words += [f"input {name} ({node.inputs.get(name, name)}) is another" for name in difference.inputs]
    words += ["asked for again"] if difference.redo else []
    if difference.external_inputs:
        words.append(
            f"what it saw outside the store changed ({'; '.join(_seen(manifest.config, node.config)) or _FILES})"
        )
    return f"differs from {manifest.key[:12]}: {'; '.join(words)}" if words else node.why


def _modules_of_run(store: "Store", run_id: str, node: str) -> dict[str, str]:
    """The hashes of a node's modules as a run wrote them down; empty where it is gone."""
    try:
        modules: dict[str, str] = store.runs.open(run_id).spec().get("modules", {}).get(node, {})
    except WfmError:
        return {}
    return modules


def _nearest(
    store: "Store", run: "Run", name: str, node: Mapping[str, Any]
) -> "tuple[Run, dict[str, Any], Difference] | None":
    """Of the newest earlier runs the one whose key of this node differs in the fewest parts; the newest of equals."""
    best = None
    modules = _modules(run.spec())
    for other, spec in _specs(store.runs.before(run, _RUNS_LOOKED_AT)):
        found = next((one for one in _nodes(spec) if one["name"] == name and one["stage"] == node["stage"]), None)
        if found is None:
            continue
        difference = compare(found, node, _modules(spec), modules)
        if best is None or len(difference) < len(best[2]):
            best = (other, found, difference)
        if not len(difference):
            break
    return best


def _specs(runs: "list[Run]") -> "Iterator[tuple[Run, dict[str, Any]]]":
    """Each run with its spec, some read at once; those that cannot be read are passed over."""

    def read(run: "Run") -> dict[str, Any] | None:
        try:
            return run.spec()
        except WfmError:
            return None

    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        for start in range(0, len(runs), _READS_AT_ONCE):
            some = runs[start : start + _READS_AT_ONCE]
            yield from ((run, spec) for run, spec in zip(some, pool.map(read, some), strict=True) if spec is not None)


def _nodes(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The nodes that a spec describes as `create_run` does; it is read from a store, where anything may lie."""
    found = spec.get("nodes")
    return [one for one in found if _is_node(one)] if isinstance(found, list) else []


def _is_node(one: Any) -> bool:
    texts, maps = ("name", "stage", "component", "code_id"), ("what", "inputs", "sources")
    return (
        isinstance(one, dict)
        and all(isinstance(one.get(name), str) for name in texts)
        and all(isinstance(one.get(name), dict) for name in maps)
        and all(isinstance(key, str) for name in maps[1:] for key in one[name].values())
        and "key" in one
    )


def _modules(spec: Mapping[str, Any]) -> dict[str, Any]:
    found = spec.get("modules")
    return {name: value for name, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def compare(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    modules_before: Mapping[str, Any],
    modules_after: Mapping[str, Any],
) -> Difference:
    """What differs between the parts of two keys."""
    found = Difference()
    old, new = flat(before["what"]), flat(after["what"])
    pairs_of = ((path, (old.get(path, _ABSENT), new.get(path, _ABSENT))) for path in sorted({*old, *new}))
    found.config = {path: pair for path, pair in pairs_of if pair[0] != pair[1]}
    names = sorted({*before["inputs"], *after["inputs"]})
    pairs = {name: (before["inputs"].get(name, ""), after["inputs"].get(name, "")) for name in names}
    found.inputs = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if before["code_id"] != after["code_id"]:
        found.code = (before["code_id"], after["code_id"])
        one, two = modules_before.get(before.get("name", ""), {}), modules_after.get(after.get("name", ""), {})
        found.modules = sorted(module for module in {*one, *two} if one.get(module) != two.get(module))
    found.redo = before.get("redo", "") != after.get("redo", "")
    found.external_inputs = not len(found) and before["key"] != after["key"]
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _described(difference: Difference, before: Mapping[str, Any], node: Mapping[str, Any]) -> Iterator[str]:
    if difference.code is not None:
        yield f"Code: {_code_words(*difference.code)}"
        yield from (f"    {module} is not what it was" for module in difference.modules[:_SHOWN])
        if not difference.modules and any(
            len(one) != _HASH for pair in _code_pairs(*difference.code) for one in pair[1:]
        ):
            yield "    the version in the table was raised, or the lock was renewed; no module reads differently"
    for path, (old, new) in list(difference.config.items())[:_SHOWN]:
        yield f"Option {node['name']}.{path}: {_text(old)} -> {_text(new)}"
    for name, (was, now) in difference.inputs.items():
        source = node["sources"].get(name, name)
        yield f"Input {name} ({source}): {was[:12] or 'none'} -> {now[:12] or 'none'}; wfm explain RUN {source} says why"
    if difference.redo:
        yield "It was asked for again (rerun --from), or an earlier time had been."
    if difference.external_inputs:
        yield f"Code, options and inputs are the same: what it saw outside the store changed ({_FILES})."
        yield from (f"    {words}" for words in _seen(before.get("config"), node.get("config")))


def _seen(before: Any, after: Any) -> list[str]:
    """The options that say where to look and how far, such as ``videos`` and ``limit``, where they are others: they are in no
    key, what they lead to is."""
    old, new = (flat(config) if isinstance(config, Mapping) else {} for config in (before, after))
    return [
        f"{path}: {_text(old[path])} -> {_text(new[path])}" for path in new if path in old and old[path] != new[path]
    ]


def _same_key(store: "Store", before: "Run", name: str) -> Iterator[str]:
    yield "The key is the same: no code, option or input changed."
    state = read_state(before)
    one = state.nodes.get(name) if state is not None else None
    if one is None or one.state in ("waiting", "not_run"):
        yield "That run never came to it."
    elif one.state in ("done", "cached"):
        stones = list(tombstones(store.objects, "artifacts", one.key))
        if stones:
            yield f"That run {'made' if one.state == 'done' else 'found'} it; it {stones[-1].described()}."
        elif store.has(one.key):
            yield f"That run {'made' if one.state == 'done' else 'found'} it, and it is there: a rerun takes it up."
        else:
            yield "That run made it; it was collected since."
    else:
        yield f"That run did not finish it: {one.reason or one.state}."


def _code_pairs(old: str, new: str) -> list[tuple[str, str, str]]:
    """(what, before, now) of each code that differs: the component's own, named "", and of each thing its config names."""
    before, now = ({one.rpartition(".")[0]: one.rpartition(".")[2] for one in code.split("+")} for code in (old, new))
    return [
        (name, before.get(name, "none"), now.get(name, "none"))
        for name in (*before, *(name for name in now if name not in before))
        if before.get(name) != now.get(name)
    ]


def _code_words(old: str, new: str) -> str:
    """Such as ``v1 -> v2, diffusion.fit: v1 -> 5ec2d71082f7``."""
    pairs = _code_pairs(old, new)
    return ", ".join(
        f"{name}: {was[:12]} -> {now[:12]}" if name else f"{was[:12]} -> {now[:12]}" for name, was, now in pairs
    )


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "none stated"
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
