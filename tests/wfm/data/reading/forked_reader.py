"""A reader that has read, and is then forked off: the child makes its own connections, and the parent keeps its own.

    python -m tests.wfm.data.reading.forked_reader PLACES.npz OPTIONS SHARD ...

PLACES holds the arrays of `RecordPlaces`, OPTIONS those of the store as JSON. Standard output gets, a line each, the sha256 of
row 4 as the parent read it, of row 5 as the child did, and of row 6 by the parent again. Not in the process of the tests: all
that its other threads hold would be held in the child for ever.
"""

import faulthandler
import hashlib
import json
import os
import signal
import sys

import numpy as np

from wfm.artifacts import Store
from wfm.data.reading import ReadingConfig, RecordPlaces, RecordReader

DEADLINE = 60
"""Seconds after which either process says where it is, and dies of it."""


def told(members):
    """Of the members of a record, in one line."""
    whole = b"".join(name.encode() + members[name] for name in sorted(members))
    print(hashlib.sha256(whole).hexdigest(), flush=True)


def limit():
    """By a signal: faulthandler's thread for this is lost in a child, and asking it for a second one waits for it for ever."""
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(DEADLINE)


def main(arrays, options, *shards):
    limit()
    store = Store.open("s3://reading/store", json.loads(options))
    with RecordReader(RecordPlaces(list(shards), **np.load(arrays)), ReadingConfig(), store) as reader:
        told(reader.read(4))
        child = os.fork()
        if not child:
            try:
                limit()
                told(reader.read(5))
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == 0, f"the child ended with {code}"
        told(reader.read(6))


if __name__ == "__main__":
    main(*sys.argv[1:])
