"""What a worker process keeps between parts: models that take longer to open than a part takes to make.

    _TOKENIZERS: Kept[Tokenizer] = Kept()
    tokenizer = _TOKENIZERS.get(key, lambda: open_model(artifact))

The workers of a machine serve several stages at a time, so the last two are kept and not the last alone.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The last `most` values, by key."""

    def __init__(self, most: int = 2) -> None:
        self._most = most
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of `key`, made if it is not kept; the one that was not asked for the longest goes before it is made."""
        if key not in self._values:
            while len(self._values) >= self._most:
                self._values.popitem(last=False)
            self._values[key] = make()
        self._values.move_to_end(key)
        return self._values[key]
