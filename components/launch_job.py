"""Make or adopt the job of a stage on Kubernetes, and follow it until its artifact is there: what an engine on a cluster starts
in place of the stage itself (`wfm.cluster.launcher`).

    python -m components.launch_job --spec URL --input NAME=KEY ... --key-out PATH [--cluster FILE] [--api URL] [--dry-run]

The command line of a stage; what its pods need stands in its spec. Exit codes are the stage's, too. SIGTERM only detaches (75):
the job goes on, and the next launcher adopts it; `wfm cancel` ends it (143).
"""

import argparse
import json
import sys
import traceback

from components.entrypoint import announce, given_inputs, node_key, read_spec, refuse_other_code
from wfm import caches, stopping
from wfm.artifacts.environment import store_options
from wfm.cluster.view import End
from wfm.errors import Cancelled, InputError, WfmError
from wfm.log import get_logger, set_up


def main() -> None:
    """Launch; never returns."""
    parser = argparse.ArgumentParser(prog="python -m components.launch_job", description="Run one stage as a job.")
    parser.add_argument("--spec", required=True, help="URL or path of the node's spec (JSON)")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=KEY", help="an input artifact's key")
    parser.add_argument("--key-out", default="", metavar="PATH", help="file to write the artifact's key to")
    parser.add_argument("--cluster", default="", metavar="FILE", help="settings of the cluster (default: WFM_CLUSTER)")
    parser.add_argument("--api", default="", metavar="URL", help="API server (default: kubeconfig, or this pod's own)")
    parser.add_argument("--dry-run", action="store_true", help="print the job that it would make")
    arguments = parser.parse_args()
    stopping.listen()
    set_up()
    try:
        end = launch(arguments)
    except (WfmError, OSError) as error:
        end = End.of(getattr(error, "outcome", "try_again"), f"{type(error).__name__}: {error}")
    except Exception as error:
        end = End.of("bug", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    if end.exit_code:
        get_logger("wfm.launcher").error("%s: %s", end.outcome, end.reason)
    sys.exit(stopping.exit_when_cancelled() if end.outcome == Cancelled.outcome else end.exit_code)


def launch(arguments: argparse.Namespace) -> End:
    """Follow the job of a spec to its end. Raises InputError for what no launcher can do anything with."""
    from wfm.artifacts import Store, generations
    from wfm.cluster.api import Api
    from wfm.cluster.entry import object_of, phases
    from wfm.cluster.launcher import Launcher, RealClock
    from wfm.cluster.request import JobRequest
    from wfm.cluster.settings import ClusterSettings

    caches.prepare()
    spec = read_spec(arguments.spec)
    store, given = Store.open(spec["store"], store_options()), given_inputs(arguments.input)
    key = node_key(spec, given, store)
    generation = generations.read_state(store.objects, f"artifacts/{key}").next
    request = JobRequest.of_spec(spec, arguments.spec, given, key, generation)
    try:
        settings = ClusterSettings.read(arguments.cluster)
        refuse_other_code(spec, "the launcher", starts=settings.image(request.image))
        if arguments.dry_run:
            made = [object_of(phase, settings) for phase in phases(request)]
            print(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2))
            return End.of("done")
        api = Api.connect(namespace=settings.namespace, url=arguments.api)
        end = Launcher(api, store, settings, RealClock()).run(request)
    except InputError:
        if arguments.dry_run or not store.has(key):
            raise
        end = End.of("cached")  # what is there needs no cluster
    if end.exit_code == 0:
        announce(spec, arguments.key_out, end.key or key, store)
    return end


if __name__ == "__main__":
    main()
