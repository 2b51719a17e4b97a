"""Objects read by the official clients' own models: what these do not know, or take for something else, is an error."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

Json = dict[str, Any]


def argo(model: str, found: Json) -> Json:
    """``found`` as a model of argo_workflows holds it, such as ``io_argoproj_workflow_v1alpha1_workflow``. Fields that Argo has
    from 4.1 on, and this client (of 3.6) not, are named in `BESIDE`. Nulls are what the server sends of times that are not yet,
    and what the client cannot read (argo-workflows #9122)."""
    import argo_workflows
    from argo_workflows.model_utils import validate_and_convert_types

    kind = _class(import_module(f"argo_workflows.model.{model}"), model)
    plain = _without(found)
    made = validate_and_convert_types(plain, (kind,), ["answer"], True, True, argo_workflows.Configuration())
    _known(made, plain, model)
    return found


BESIDE = ("pendingTimeout",)


def _class(module: Any, name: str) -> Any:
    return next(value for key, value in vars(module).items() if key.lower() == name.replace("_", ""))


def _without(found: Any) -> Any:
    """Without nulls and `BESIDE`; what is a number or a text to Argo (of a template its deadline) is a text to the client."""
    if isinstance(found, Mapping):
        plain = {name: _without(value) for name, value in found.items() if value is not None and name not in BESIDE}
        if "container" in plain and "activeDeadlineSeconds" in plain:
            plain["activeDeadlineSeconds"] = str(plain["activeDeadlineSeconds"])
        return plain
    return [_without(one) for one in found] if isinstance(found, list) else found


def _known(made: Any, plain: Any, where: str) -> None:
    """The client keeps a field that it does not know as it came: that is a fault here."""
    if isinstance(made, list):
        for one, other in zip(made, plain, strict=True):
            _known(one, other, where)
    elif isinstance(made, dict):
        for name, one in made.items():
            _known(one, plain[name], f"{where}.{name}")
    elif hasattr(made, "attribute_map"):
        unknown = set(plain) - set(made.attribute_map.values()) if isinstance(plain, dict) else set()
        if unknown:
            raise AssertionError(f"{where} has no field {', '.join(sorted(unknown))}")
        for name, alias in made.attribute_map.items():
            if isinstance(plain, dict) and alias in plain:
                _known(getattr(made, name), plain[alias], f"{where}.{alias}")


def kfp(model: str, found: Json) -> Json:
    """``found`` as a model of kfp_server_api holds it, such as ``V2beta1Run``."""
    import kfp_server_api

    _kfp(getattr(kfp_server_api, model), found, model)
    return found


def _kfp(kind: Any, found: Any, where: str) -> None:
    import kfp_server_api

    allowed = kind.attribute_map
    names = {alias: name for name, alias in allowed.items()}
    if not names:  # an enumeration
        choices = kind.allowable_values if hasattr(kind, "allowable_values") else ()
        assert found in choices, f"{where}: {found!r} is none of {choices}"
        return
    unknown = set(found) - set(names)
    if unknown:
        raise AssertionError(f"{where} has no field {', '.join(sorted(unknown))}")
    for alias, value in found.items():
        told = kind.openapi_types[names[alias]]
        inner = told.removeprefix("list[").removesuffix("]")
        if hasattr(kfp_server_api, inner):
            for one in value if told.startswith("list[") else [value]:
                _kfp(getattr(kfp_server_api, inner), one, f"{where}.{alias}")
        elif told in ("str", "datetime"):
            assert isinstance(value, str), f"{where}.{alias} is no text"
        elif told in ("int", "bool"):
            assert isinstance(value, int), f"{where}.{alias} is no {told}"
