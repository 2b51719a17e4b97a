"""A model of the Kubernetes API server, for tests: over real HTTP, so that the official client works against it unchanged.

1. `kinds`      what is served
2. `storage`    objects under one counter and their history, as etcd keeps them; a journal that outlives the process
3. `selectors`, `patches`      what lists, watches and patches are asked with
4. `api`        the verbs: 409, preconditions, finalizers, grace, pages, quota
5. `faults`     what goes wrong on purpose
6. `http`       the same over HTTP: watches, bookmarks, 410, 429, dropped connections

Not modelled: managed fields and server-side apply, conversion between versions, admission but what tests add, tables,
protobuf, authentication but a bearer token.
"""
