"""What a model costs, from its configuration alone: parameters, arithmetic, memory, tokens. Torch-free.

    parts        Part and Video: what the formulas are about
    report       Cost: all of it for a model and a video; `cost_of` asks the model's family
    work         Work: what training on one sample takes, for rates of a run

The closed formulas of each family are its own: `wfm/families/*/cost.py`.

FLOPs are twice the multiply-adds of products, convolutions and attention, as this code runs them (a tokenizer's up-sampling
takes fewer than its textbook form); elementwise work is left out, as torch's FlopCounterMode leaves it out.
"""

from typing import Any

__all__ = ["Cost", "Part", "Video", "Work", "cost_of"]

_HOMES = {"Cost": "report", "cost_of": "report", "Part": "parts", "Video": "parts", "Work": "work"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
