"""Parts of a corpus: which there are, what lies in them, and who makes them.

    prefixes    which part a video belongs to, by the first bits of its id
    part        what a function that makes one part is given, and counts added up over parts
    tables      tables that global steps read and write part by part
    kept        models that a worker keeps open from one part to the next
    workers     where parts are made: in this process, or on the workers of a Dask scheduler
    dask_settings   what Dask is told, by us and by the user, here and on a cluster
    in_worker   what a Dask worker does before its first task

A part is made once and shared between artifacts; its key is `components.context`'s. Where it is made decides nothing of what
is in it, so `workers` and what it is told enter no key.
"""

__all__ = ["dask_settings", "in_worker", "kept", "part", "prefixes", "tables", "workers"]
