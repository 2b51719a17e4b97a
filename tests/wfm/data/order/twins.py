"""Plain twins of the order: what each part says, one sample at a time, with nothing borrowed from the part itself.

Beside them, what the issue's figures are of (`lengths_of`) and the rival that they stand beside (`greedy_buffers`).
"""

import bisect
import math

import numpy as np

MASK = 2**64 - 1


def scramble(value: int) -> int:
    value ^= value >> 30
    value = value * 0xBF58476D1CE4E5B9 & MASK
    value ^= value >> 27
    value = value * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def hash64(*parts: int) -> int:
    value = 0
    for part in parts:
        value = scramble((value ^ part) + 0x9E3779B97F4A7C15 & MASK)
    return value


def permute(position: int, size: int, key: int, rounds: int = 16) -> int:
    high = math.ceil(math.sqrt(size))
    low = -(-size // high)
    while True:
        left, right = divmod(position, low)
        for number in range(rounds):
            shift = key + number * 0xD1342543DE82EF95
            if number % 2:
                right = (right + ((scramble(left + shift & MASK) >> 32) * low >> 32)) % low
            else:
                left = (left + ((scramble(right + shift & MASK) >> 32) * high >> 32)) % high
        position = left * low + right
        if position < size:
            return position


def blend(rates: list[int], count: int) -> list[int]:
    """Of the sources that are below their share at the end of a draw, the one whose next draw must come first."""
    total, drawn, found = sum(rates), [0] * len(rates), []
    for number in range(count):
        may = [i for i, rate in enumerate(rates) if rate and drawn[i] * total // rate <= number]
        source = min(may, key=lambda i: (math.ceil((drawn[i] + 1) * total / rates[i] - 1e-9), i))
        drawn[source] += 1
        found.append(source)
    return found


def stream_epoch(count: int, streams: int, stream: int, epoch: int, key: int, stands=None) -> list[tuple[int, int]]:
    """The (piece, repeat) of a stream's epoch in their order. `stands`: of each piece how often it is in the epoch."""
    listed = [
        (piece, nth) for piece in range(stream, count, streams) for nth in range(1 if stands is None else stands[piece])
    ]
    return [listed[permute(place, len(listed), hash64(key, stream, epoch))] for place in range(len(listed))]


def pack(lengths: list[int], budget: int, bins: int, age: float = math.inf) -> tuple[list[list[int]], list[list[int]]]:
    """Closed packs, in the order they closed, and the open ones; draws by number."""
    closed, opened, used, changed = [], [], {}, {}
    for number, length in enumerate(lengths):
        for old in [held for held in opened if number - held[0] >= age]:
            opened.remove(old)
            closed.append(old)
        fitting = [held for held in opened if used[held[0]] + length <= budget]
        if fitting:
            chosen = max(fitting, key=lambda held: (used[held[0]], changed[held[0]]))
        else:
            if len(opened) == bins:
                fullest = max(opened, key=lambda held: (used[held[0]], changed[held[0]]))
                opened.remove(fullest)
                closed.append(fullest)
            chosen = []
            opened.append(chosen)
        chosen.append(number)
        used[chosen[0]] = used.get(chosen[0], 0) + length
        changed[chosen[0]] = number
        if used[chosen[0]] == budget:
            opened.remove(chosen)
            closed.append(chosen)
    return closed, opened


def lengths_of(seed: int, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of 60 % images and 40 % clips, log-uniform."""
    random = np.random.default_rng(seed)
    images, clips = count * 6 // 10, count * 4 // 10
    drawn = [(images, 240, 4096), (clips, 720, 48_000)]
    one, other = (np.exp(random.uniform(math.log(low), math.log(high), n)).astype(np.int64) for n, low, high in drawn)
    return one, other


def greedy_buffers(lengths: list[int], budget: int, buffer: int) -> list[list[int]]:
    """Packs of lengths as NeMo's greedy knapsack makes them: the largest that still fits, again and again, until the buffer is
    empty; then the next buffer."""
    packs = []
    for first in range(0, len(lengths), buffer):
        waiting = sorted(lengths[first : first + buffer])
        while waiting:
            held, free = [], budget
            while place := bisect.bisect_right(waiting, free):
                held.append(waiting.pop(place - 1))
                free -= held[-1]
            packs.append(held)
    return packs
