"""The three ways to patch: merge (RFC 7386), JSON patch (RFC 6902), strategic merge as far as pods and jobs need it."""

from typing import Any

import jsonpatch

MERGE_KEYS = {
    "conditions": "type", "containers": "name", "initContainers": "name", "volumes": "name", "env": "name",
    "ownerReferences": "uid", "taints": "key", "volumeMounts": "mountPath",
}  # fmt: skip
"""Lists that a strategic merge merges by a key; ``finalizers`` is merged as a set, any other list replaced."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def strategic(target: Any, patch: Any, field: str = "") -> Any:
    """Kubernetes' own: as `merge`, but known lists are merged by key."""
    if isinstance(patch, list) and isinstance(target, list):
        if field == "finalizers":
            return [*target, *(value for value in patch if value not in target)]
        key = MERGE_KEYS.get(field)
        if key is None:
            return patch
        result = {item[key]: item for item in target}
        for item in patch:
            if item.get("$patch") == "delete":
                result.pop(item[key], None)
            else:
                result[item[key]] = strategic(result.get(item[key], {}), item)
        return list(result.values())
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            name = name.split("/", 1)[1]
            result[name] = [kept for kept in result.get(name, []) if kept not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = strategic(result.get(name), value, name)
    return result


def apply(content_type: str, target: dict[str, Any], patch: Any) -> dict[str, Any]:
    """Raises ValueError for a patch that does not fit, KeyError for a way that is not known."""
    if content_type == "application/json-patch+json":
        try:
            return jsonpatch.apply_patch(target, patch)
        except jsonpatch.JsonPatchException as error:
            raise ValueError(str(error)) from None
    ways = {"application/merge-patch+json": merge, "application/strategic-merge-patch+json": strategic}
    return ways[content_type](target, patch)
