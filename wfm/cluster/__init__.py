"""Kubernetes: what a stage asks of a cluster, the objects that it becomes, and the launcher that makes or adopts them.

Read in this order:

1. `names`       keys and nodes -> names, labels and annotations
2. `resources`   what a node needs to run; `settings` what is known of a cluster; `request` what the launcher is asked for
3. `pod`         the pod of a stage; `objects` the four kinds of job as plain dicts: ``build(request, settings)``
4. `lint`        what a cluster takes and punishes later, refused by name before anything is made; `quota` whether it is ever
                 admitted
5. `launcher`    makes or adopts jobs and follows them; `entry` one request of it; `actions` what is done for it at the server;
                 `records` the tries in the store
6. `decide`      what it does next, a pure function of a `view`: by what the tries say (`verdict`) and whether the job is over
                 (`job_over`)
7. `api`         the server; `kinds` of its objects; `refusals` in words; `watch` mirrors of what it has; `states` jobs and
                 queues in plain words, `pod_states` pods; `fields` of objects of which nothing is trusted
8. `holding`     takes a run's jobs out of the queue for a while, so that others get their devices
9. `captioning`  raises the captioning service while a run needs it

No torch here, and the client of Kubernetes (extra ``k8s``) in one file alone, loaded when it is used. Nothing here decides what
is made: the store does. How a cluster is set up, and what to do about what a launcher says: `docs/cluster.md`.
"""
