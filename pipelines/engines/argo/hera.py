"""Hera's models, which hold what we emit: of another type or name than Argo's own, a field is an error here.

Pydantic drops what a model does not know without a word, so what comes out is compared with what went in. Fields that Argo has
and Hera's models lack are named in `BESIDE`; they go around them.
"""

import copy
from typing import Any, Literal

from wfm.errors import MissingPackage

Json = dict[str, Any]
Kind = Literal["WorkflowTemplate", "CronWorkflow"]

BESIDE = ("pendingTimeout",)
"""Fields of a template that Argo has from 4.1 on, and Hera 7.1 has not."""


def checked(kind: Kind, made: Json) -> Json:
    """The object as Hera writes it. Raises MissingPackage without Hera, ValueError where its model has no such field."""
    plain = copy.deepcopy(made)
    held = [
        {name: template.pop(name) for name in BESIDE if name in template}
        for template in _flow(kind, plain)["templates"]
    ]
    written = _through(kind, plain)
    for template, beside in zip(_flow(kind, written)["templates"], held, strict=True):
        template.update(beside)
    return written


def as_status(made: Json) -> Json:
    """The status of a workflow likewise; times are text."""
    plain = copy.deepcopy(made)
    templates = plain["storedWorkflowTemplateSpec"].pop("templates")
    written = _through("WorkflowStatus", plain)
    written["storedWorkflowTemplateSpec"]["templates"] = templates
    return written


def _through(model: str, plain: Json) -> Json:
    """What Hera's model of this name makes of it. Raises MissingPackage without Hera, ValueError where something is lost."""
    try:
        from hera.workflows import models
    except ImportError:
        raise MissingPackage("hera", extra="argo", purpose="wfm compile --engine argo") from None
    found = getattr(models, model).model_validate(plain)
    written: Json = found.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    if written != plain:
        raise ValueError(
            f"Hera's {model} has no place for {', '.join(_differences(plain, written, '')) or 'all of it'}"
        )
    return written


def _flow(kind: Kind, made: Json) -> Json:
    found: Json = made["spec"] if kind == "WorkflowTemplate" else made["spec"]["workflowSpec"]
    return {"templates": (), **found}


def _differences(given: Any, written: Any, path: str) -> list[str]:
    """Paths of what went in and did not come out."""
    if isinstance(given, dict) and isinstance(written, dict):
        return [each for name in given for each in _differences(given[name], written.get(name), f"{path}.{name}")]
    if isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        return [
            each for place, one in enumerate(given) for each in _differences(one, written[place], f"{path}.{place}")
        ]
    return [] if given == written else [path.lstrip(".")]
