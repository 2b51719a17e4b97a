"""Parts of a corpus: which there are, what lies in them, and who makes them.

    prefixes    which part a video belongs to, by the first bits of its id
    part        what a function that makes one part is given, and counts added up over parts
    tables      tables that global steps read and write part by part
    kept        models that a worker keeps open from one part to the next
    workers     where parts are made: in this process, or on the workers of a Dask scheduler

A part is made once and shared between artifacts; its key is `components.context`'s. Where it is made decides nothing of what
is in it, so `workers` enters no key.
"""

__all__ = ["kept", "part", "prefixes", "tables", "workers"]
