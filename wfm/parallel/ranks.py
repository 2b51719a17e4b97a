"""The ranks of a run: its processes, what they agree on, and the gradient of the whole batch.

    ranks = join()                         # by RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; ALONE where there is one process
    with ranks.telling():                  # what fails in here on one rank ends all of them
        if ranks.any(stopping()): ...      # asked of all, the same answer on all
        step = ranks.broadcast(step)       # rank 0's
        ranks.add_up(model, loss)              # gradients and loss of the global batch, of which each rank gives a part

Ranks call the same things in the same order. Each call is a small row of numbers from every rank to every rank, with the call's
label and number in it: ranks that are at different places say so and end, they do not take one answer for another. A rank that
failed says so in its next row, wherever the others are; one that died or hangs is `RankLost` for the others, after
`timeout_seconds` at the latest. Nothing is pickled.

Ranks have unequal parts of a global batch. What is a mean over it is a sum of what each rank gives, divided by how many they
have together: `total` tells that before the forward. `share` is the part of the batch that this rank has just been given;
`mean` and `norm` weigh by it.

ALONE is the twin of one process: the same calls, without torch.distributed. This file loads torch only where gradients or
tensors come in.
"""

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wfm.errors import Cancelled, ConfigError, InputError, TryAgain, WfmError, outcome_of
from wfm.pulse import waiting

if TYPE_CHECKING:
    from torch import Tensor, nn

TIMEOUT_SECONDS = 600.0
"""How long a call waits for the other ranks, unless `join` is told."""
BUCKET_BYTES = 25 * 2**20
"""Gradients are added up in pieces of this size, or of one parameter where that is larger."""
MOST_BYTES = 2**20
"""Largest value of `gather` and `broadcast`: these carry decisions, not data."""
PIECE = MOST_BYTES // 8
"""Letters of a text that are told at once; each may be several bytes of JSON."""

Row = Sequence[float]
_WIDTH = 3
"""Numbers of a call in a row, beside its label and number."""


class RankLost(TryAgain):
    """Another rank died, hangs, or cannot be reached."""


class RanksDiffer(WfmError):
    """Ranks that should be alike are not: at different places of the program, or with different weights."""


class Ranks:
    """One rank among `size`. This class is the one of one process; the others differ in how rows and tensors travel."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.share = 1.0
        "Of the global batch, the part that this rank has: the loader sets it with each batch. All together they are 1."
        self._calls = 0
        self.timeout_seconds = TIMEOUT_SECONDS
        "How long each call waits for the others [s]."
        self._over = False
        "Whether the ranks have parted: nothing more is asked of them."

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes."""
        return self.rank == 0

    # What all agree on

    def any_of(self, *flags: bool, label: str = "any") -> tuple[bool, ...]:
        """Whether each of up to three flags holds on any rank."""
        if self.size == 1:
            return flags
        rows = self._exchange(label, *map(float, flags))
        return tuple(any(row[place] for row in rows) for place in range(len(flags)))

    def any(self, flag: bool, label: str = "any") -> bool:
        """Whether `flag` holds on any rank."""
        return self.any_of(flag, label=label)[0]

    def all(self, flag: bool, label: str = "all") -> bool:
        """Whether `flag` holds on every rank."""
        return not self.any_of(not flag, label=label)[0]

    def any_of_many(self, flags: Sequence[bool], label: str = "any of many") -> list[bool]:
        """`any_of` for as many flags as there are, as many on each rank: one row where the ranks' flags are alike."""
        mine = bytes(flags)
        if self.size == 1 or len({row[0] for row in self._exchange(label, float(zlib.crc32(mine)))}) == 1:
            return list(flags)
        every = self._texts(label, mine, len(mine))
        return [any(given) for given in zip(*every, strict=True)]

    def barrier(self, label: str) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            self._exchange(label)

    def gather(self, value: Any, label: str = "gather") -> list[Any]:
        """The JSON values of all ranks, on all ranks. Raises ConfigError for more than `MOST_BYTES`."""
        if self.size == 1:
            return [value]
        text = json.dumps(value).encode()
        if len(text) > MOST_BYTES:
            raise ConfigError(f"{label}: {len(text)} bytes for the other ranks; {MOST_BYTES} is the most")
        longest = int(max(row[0] for row in self._exchange(label, float(len(text)))))
        return [json.loads(found) for found in self._texts(label, text, longest)]

    def broadcast(self, value: Any, label: str = "broadcast") -> Any:
        """Rank 0's JSON value; what the others give is not looked at."""
        return self.gather(value if self.leads else None, label)[0]

    def broadcast_text(self, text: str, label: str = "broadcast") -> str:
        """Rank 0's text of any length, in pieces; what the others give is not looked at."""
        pieces = [text[first : first + PIECE] for first in range(0, len(text), PIECE)]
        count = int(self.broadcast(len(pieces), label))
        return "".join(str(self.broadcast(pieces[place] if self.leads else None, label)) for place in range(count))

    def require_equal(self, value: Any, what: str) -> None:
        """Raise RanksDiffer, naming the ranks, unless `value`, a small JSON value, is rank 0's on all."""
        found = self.gather(value, what)
        other = [f"{found[rank]!r} on rank {rank}" for rank in range(self.size) if found[rank] != found[0]]
        if other:
            raise RanksDiffer(f"{what} is {found[0]!r} on rank 0 and {', '.join(other[:4])} of {self.size}")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What is raised inside on one rank is raised by every rank at its next call, with the words and the outcome of the
        first that failed. In here all ranks have to come by a last call, such as a barrier."""
        try:
            yield
        except Exception as error:
            if self.size > 1 and not self._over:
                self._part("trouble", error)
            raise

    @contextmanager
    def only_together(self, label: str) -> Iterator[None]:
        """Tensors travel in here, by these calls or by torch's own (`wfm.parallel.spread`), and the others may wait for one and
        for no row: a row in its place would be taken for it, and gloo aborts them. So whoever fails in here says nothing,
        leaves with its own words (within `telling` too), and is lost to the others as its process ends.

        Raises RankLost for what torch says of a rank that is not there."""
        try:
            yield
        except BaseException as error:
            self._over = self.size > 1
            if self._over and _is_of_transport(error):
                raise self._lost(label, error) from error
            raise

    # Of the global batch

    def mean(self, value: float, label: str = "mean") -> float:
        """The mean over the global batch of a number that is a mean over this rank's share."""
        return value if self.size == 1 else sum(row[0] for row in self._exchange(label, self.share * value))

    def norm(self, tensor: "Tensor", label: str = "norm") -> "Tensor":
        """The norm over the global batch of what is a gradient at this rank's samples, of a mean over its share."""
        if self.size == 1:
            return tensor.norm()
        rows = self._exchange(label, self.share * float(tensor.norm()))
        return tensor.new_tensor(math.sqrt(sum(row[0] * row[0] for row in rows)))

    def total(self, counts: Mapping[str, float], label: str = "total") -> dict[str, float]:
        """Numbers by name, added up over the ranks, each of which has the same names."""
        if self.size == 1:
            return dict(counts)
        names = list(counts)
        found: dict[str, float] = {}
        for at in range(0, len(names), _WIDTH):
            some = names[at : at + _WIDTH]
            rows = self._exchange(f"{label}: {', '.join(some)}", *(counts[name] for name in some))
            found |= {name: math.fsum(row[place] for row in rows) for place, name in enumerate(some)}
        return found

    def add_up(self, module: "nn.Module", *numbers: "Tensor", label: str = "gradients") -> None:
        """Add up the gradients of `module` over the ranks, in place, and scalars such as the loss. Each rank's are of its part
        of a mean over the global batch, divided already. A parameter without a gradient on any rank stays without; one that
        some ranks have none for counts as 0 there. Frozen parameters are left alone. Nothing is read from a device. Those
        of spread parameters are added up already, by the backward pass (`wfm.parallel.spread`)."""
        if self.size == 1:
            return
        import torch

        from wfm.parallel.shards import is_spread

        learning = [p for p in module.parameters() if p.requires_grad and not is_spread(p)]
        has = bytes(p.grad is not None for p in learning)
        rows = self._exchange(label, float(zlib.crc32(has)))
        with torch.no_grad(), self.only_together(label):
            if len({row[0] for row in rows}) > 1:
                counts = torch.tensor(list(has), dtype=torch.int32)
                self._sum(counts, label)
                for parameter, count in zip(learning, counts.tolist(), strict=True):
                    if count and parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
            for bucket in _buckets([*[p.grad for p in learning if p.grad is not None], *numbers]):
                flat = torch.cat([tensor.flatten() for tensor in bucket])
                self._sum(flat, label)
                for tensor, summed in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                    tensor.copy_(summed.view_as(tensor))

    # Weights

    def begin_alike(self, module: "nn.Module") -> None:
        """Give every rank the parameters and buffers of rank 0. Raises ConfigError for a layer whose numbers in training would
        be those of a rank's share alone."""
        if self.size == 1:
            return
        import torch

        from wfm.parallel.alike import refuse_batch_statistics

        refuse_batch_statistics(module)
        tensors = (*module.parameters(), *module.buffers())
        self.require_equal(sum(tensor.numel() for tensor in tensors), "the model's size")
        with torch.no_grad(), self.only_together("first weights"):
            for tensor in tensors:
                self._from_first(tensor, "first weights")

    def require_alike(self, *modules: "nn.Module", label: str) -> None:
        """Raise RanksDiffer, naming the ranks, unless all hold the same parameters and buffers as rank 0, bit for bit; of
        spread parameters, unless all that hold the same part do."""
        if self.size == 1:
            return
        from wfm.parallel.alike import hash_of, parts_held

        hashes = self.gather([hash_of(module) for module in modules], label)
        places: list[list[int]] = self.gather(parts_held(modules), label)
        first = [places.index(place) for place in places]
        other = [rank for rank, found in enumerate(hashes) if found != hashes[first[rank]]]
        if other:
            raise RanksDiffer(
                f"{label}: rank {', '.join(map(str, other))} of {self.size} holds other weights than rank {first[other[0]]}. "
                "Ranks take the same steps only on the same kind of machine with as many threads each, and with sound memory. "
                "Nothing of this was kept: the last checkpoint is whole"
            )

    # How it travels

    def _lost(self, label: str, error: BaseException) -> RankLost:
        """What torch says of a rank that is not there, in our words."""
        return RankLost(
            f"rank {self.rank} of {self.size}, at {label!r}: another rank died, or has been silent for "
            f"{self.timeout_seconds:g} s ({str(error).strip().partition(chr(10))[0][:300]})"
        )

    def _exchange(self, label: str, *values: float) -> list[Row]:
        """A row of numbers from every rank to every rank. Raises what another rank failed of, RanksDiffer when one is somewhere
        else, RankLost."""
        if self._over:
            raise RankLost(f"{label}: the ranks have parted")
        self._calls += 1
        padded = (*values, *[0.0] * (_WIDTH - len(values)))
        rows = self._rows((float(zlib.crc32(label.encode())), float(self._calls), *padded), label)
        if len({tuple(row[:2]) for row in rows}) > 1:
            self._part(label, None)
        return [row[2:] for row in rows]

    def _part(self, label: str, error: Exception | None) -> None:
        """Tell the others why this rank is not where they are, or hear why they are not; the ranks part with it. Raises what
        another rank failed of, or returns, if it was this one first."""
        if error is not None:  # the others see it in the row that they are waiting for
            self._rows((-1.0, *[0.0] * (_WIDTH + 1)), label)
        self._over = True
        words = f"{type(error).__name__}: {error}"[:4000] if error is not None else label
        outcome = WfmError.outcome if error is None else outcome_of(error)
        text = json.dumps({"failed": error is not None, "outcome": outcome, "words": words}).encode()
        longest = int(max(row[0] for row in self._rows((float(len(text)),), label)))
        said = [json.loads(found) for found in self._texts(label, text, longest)]
        if error is not None:
            return
        for rank, one in enumerate(said):
            if one["failed"]:
                raise _KINDS.get(one["outcome"], WfmError)(f"rank {rank} of {self.size}: {one['words']}")
        places = ", ".join(f"rank {rank} at {one['words']!r}" for rank, one in enumerate(said))
        raise RanksDiffer(f"the ranks are at different places: {places}")

    def _texts(self, label: str, text: bytes, longest: int) -> list[bytes]:
        """Texts of at most `longest` bytes from every rank to every rank."""
        rows = self._rows([float(byte) for byte in text.ljust(longest)], label)
        return [bytes(int(number) for number in row) for row in rows]

    def _rows(self, row: Row, label: str) -> list[Row]:
        """As many numbers from each rank, to all of them, by rank."""
        raise NotImplementedError

    def _sum(self, tensor: "Tensor", label: str) -> None:
        """The sum over ranks, in place, the same bits on each."""
        raise NotImplementedError

    def _from_first(self, tensor: "Tensor", label: str) -> None:
        """Rank 0's, in place."""
        raise NotImplementedError


ALONE = Ranks()
"""The ranks of one process."""

_KINDS: dict[str, type[WfmError]] = {kind.outcome: kind for kind in (WfmError, InputError, TryAgain, Cancelled)}


class ProcessRanks(Ranks):
    """Ranks that are processes, by torch.distributed: decisions by gloo, tensors on CUDA by nccl."""

    def __init__(self, rank: int, size: int, timeout_seconds: float) -> None:
        super().__init__(rank, size)
        self.timeout_seconds = timeout_seconds

    def _rows(self, row: Row, label: str) -> list[Row]:
        import torch
        import torch.distributed as dist

        mine = torch.tensor(row, dtype=torch.float64)
        rows = torch.empty(self.size * len(row), dtype=torch.float64)
        with self._reaching(label):
            dist.all_gather_single(rows, mine)
        return [found.tolist() for found in rows.view(self.size, -1)]

    def _sum(self, tensor: "Tensor", label: str) -> None:
        import torch.distributed as dist

        with self._reaching(label):
            dist.all_reduce(tensor)

    def _from_first(self, tensor: "Tensor", label: str) -> None:
        import torch.distributed as dist

        with self._reaching(label):
            dist.broadcast(tensor.data, 0)

    @contextmanager
    def _reaching(self, label: str) -> Iterator[None]:
        """Raises RankLost for what torch says of a rank that is not there."""
        try:
            with waiting(label):
                yield
        except RuntimeError as error:
            self._over = True
            raise self._lost(label, error) from error


def join(timeout_seconds: float = TIMEOUT_SECONDS, environment: Mapping[str, str] = os.environ) -> Ranks:
    """The ranks that the environment names, as torchrun and the training operators set it; ALONE for one process. Ranks that
    our own engine started on this machine meet in its folder (``WFM_RANKS_FOLDER``), where nothing listens.

    Every call waits at most `timeout_seconds` for the others. Raises ConfigError for an environment that names no rank,
    RankLost when the others do not come.
    """
    if environment.get("WORLD_SIZE", "1") == "1" and environment.get("RANK", "0") == "0":
        return ALONE
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    given = {name: environment.get(name, "") for name in names}
    numbers = {
        name: int(given[name]) if given[name].isdecimal() else -1 for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")
    }
    rank, size, folder = numbers["RANK"], numbers["WORLD_SIZE"], environment.get("WFM_RANKS_FOLDER", "")
    where = folder or ":".join((given["MASTER_ADDR"], given["MASTER_PORT"]))
    meet = folder or (numbers["MASTER_PORT"] >= 0 and given["MASTER_ADDR"])
    if not (0 <= rank < size and meet):
        raise ConfigError(
            f"ranks: the environment says {', '.join(f'{name}={value!r}' for name, value in given.items())}; wanted are RANK "
            "from 0 to WORLD_SIZE - 1, and where rank 0 listens. torchrun sets all four; for one process unset the "
            "first two"
        )
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        patience = timedelta(seconds=timeout_seconds)
        url = f"file://{folder}/rendezvous" if folder else "env://"
        store, _, _ = next(iter(dist.rendezvous(url, rank, size, timeout=patience)))  # type: ignore[attr-defined]
        # torchrun keeps its store when it starts ranks anew: they must not look for those before them where these listened
        start = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"start {start}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    except RuntimeError as error:
        raise RankLost(
            f"rank {rank} of {size} did not meet the others at {where} within "
            f"{timeout_seconds:g} s ({str(error).splitlines()[0][:300]})"
        ) from error
    return ProcessRanks(rank, size, timeout_seconds)


def _is_of_transport(error: BaseException) -> bool:
    """Whether this is torch's word on a rank that cannot be reached, and no failure of this rank's own. gloo has no type for
    it, but names the file of its transport that says so."""
    if not isinstance(error, RuntimeError):
        return False
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _buckets(gradients: "Sequence[Tensor]") -> "Iterator[list[Tensor]]":
    """Gradients in order, in groups of one type and device and at most `BUCKET_BYTES`."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        alike = not bucket or (gradient.dtype, gradient.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not alike or size + gradient.nbytes > BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.nbytes
    if bucket:
        yield bucket
