"""Ranks that are processes, forked off one that has loaded torch already: a fraction of the time of starting each."""

import os
import socket
import sys
import traceback
from collections.abc import Callable

from wfm.parallel.ranks import Ranks, join


def fork_ranks(size: int, work: Callable[[Ranks], None], seconds: float) -> list[int]:
    """Run `work` in `size` new processes, with `seconds` for each call of theirs; how each ended (below 0: by a signal). Torch
    must not have computed here yet: its threads do not survive a fork."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        code = 1
        try:
            import torch

            torch.set_num_threads(1)
            work(join(seconds))
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)  # not by the interpreter: now and then a thread of gloo aborts it there
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
