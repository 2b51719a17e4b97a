"""The artifact store: everything a stage makes, found by key, committed at one point, checked when it is read.

Read in this order:

1. `store`         the facade: `Store.open(url)`, `has`, `artifact`, `attempt`, `promote`, `resolve`, `lease`, `gc`, `pull` ...;
                   `shelf` its reading half, which all that collects, verifies and traces is given
2. `address`       store URLs, keys, which paths and names are allowed, and the one join of paths
3. `manifest`      what a commit says; `listing` its trees of files and parts; `schema` how any record from outside is read
4. `attempt`       a folder to write in, and the commit; `atomic` the one way to write a file whole; `generations` which commit
                   counts
5. `artifact`      reading: files, tables, parts; `verified` the check; `tables` Parquet in pieces; `pull` copies for people, by
                   `copying`
6. `names`         kind/name@alias with history; `runs` specs, attempts, outcomes, logs, `run_list` which runs there are;
                   `lease` who works on a key
7. `checkpoints`   what a stage that lost its machine goes on from (`checkpoint_record` what one says, `uploads` the thread that
                   sends them)
8. `invalidation`  tombstones; `verify` reads every byte; `lineage` where it came from; `collect` deletes what nobody needs
                   (`roots` knows what is needed, `open_runs` which runs are not over, `gc_report` what it found,
                   `retention` is its policy and its record), `nameless` what the killed left; `purge` takes a video out of
                   everything (`purge_copies`: caches, notes)
9. `environment`   which store is meant where nobody says so, and how it is reached; `missing_store` that it is there
10. `objects`      the ten verbs that all of this needs of a place; `on_disk` (file://), `on_cloud` (s3://, gs://), `trouble`
                   (its errors)

Layout below the store's URL:

    artifacts/<key>/manifest.json          the only commit point (after an invalidation manifest-<n>.json, tombstone-<n>.json)
    artifacts/<key>/attempts/<attempt>/…   the files
    parts/<part key>/…                     parts, committed the same way and shared between artifacts
    refs/<kind>/<name>/<alias>/<n>.json    names; the highest n counts
    checkpoints/<key>/<fence>-<step>-<id>.json  of stages that are not through; the files lie in a folder of that name
    collections/<id>.json                  what a collection deleted, and why
    purged/<video id>.json                 videos that must not come back
    poison/<step>/<id>.json                notes of items that crash whoever opens them
    captions/<2>/<clip sha256>/<id>.json   what models said of a clip, so that nothing is asked twice
    exporter/counted.json                  what `wfm metrics serve` has counted, for the next one to go on from
    exporter/counted/<id>.json             the same of runs that rest
    runs/.by-time/<stamp>-<run>            when a run of a given id was made
    probe/create-if-absent                 buckets: what was put twice to see that the second put is refused
    leases/<key>/…    runs/<id>/…    scratch/<key>/… (local stores only; a remote one's scratch lies in the cache)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wfm.artifacts.artifact import Artifact as Artifact
    from wfm.artifacts.listing import FileEntry as FileEntry
    from wfm.artifacts.listing import PartEntry as PartEntry
    from wfm.artifacts.manifest import Manifest as Manifest
    from wfm.artifacts.store import Store as Store

_ROOMS = {
    "Artifact": "artifact",
    "FileEntry": "listing",
    "Manifest": "manifest",
    "PartEntry": "listing",
    "Store": "store",
}

__all__ = ["Artifact", "FileEntry", "Manifest", "PartEntry", "Store"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
