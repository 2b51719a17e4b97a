"""What a store holds, for people who do not run wfm: cards of models and data sets, and a catalogue of them.

A bundle is published before anybody looks back at it, and its bytes never change; so a card is drawn from the records when it
is asked for: the bundle, its newest evaluation, its lineage, the data set upstream. Read in this order:

    sheet          what a card says, as typed values: the public schema of `--json`, `model_card.json`, `dataset_card.json`
    of_model       a bundle, in a store or in a folder that was pulled -> `ModelSheet`
    later          the newest evaluation of a bundle's model, where one was made after it was published
    of_dataset     a data set in a store -> `DatasetSheet`
    markdown       text from outside made harmless in Markdown, front matter as Hugging Face reads it
    model_card     `ModelSheet` -> Markdown; `dataset_card` the same of a `DatasetSheet`
    beside         cards written beside what `wfm artifacts pull` copied
    entries        every name of a store with its history, its sheet, or why it cannot be read
    site           `write_catalogue(store, out)`: plain HTML and JSON that any bucket can serve

Nothing here loads torch: no weight is read. Everything read is data from outside: it is checked by `sheet` and escaped where it
is shown.
"""

from typing import Any

__all__ = ["DatasetSheet", "ModelSheet", "write_catalogue"]

_HOME = {"DatasetSheet": "sheet", "ModelSheet": "sheet", "write_catalogue": "site"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
