"""The suite tested itself: bugs planted into the launcher, each of which must turn a scenario red that is green without it.

A bug is a patch of a named seam of the launcher (`wfm/cluster/`), by which the line that prevents it is as good as gone. The
scenario is one of `scenarios/`, or a short one here, called as a function. `noted` has the list, `promises` and `troubles` the
bugs.
"""

from tests.cluster.plants.noted import PLANTS
from tests.cluster.plants.promises import an_eviction_costs_no_retry
from tests.cluster.plants.troubles import a_crash_unseen

__all__ = ["PLANTS", "a_crash_unseen", "an_eviction_costs_no_retry"]
