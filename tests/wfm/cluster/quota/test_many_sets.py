"""A gang of many sets: like ones are looked through once, and of unlike ones no more than can be."""

import pytest

from wfm.cluster.quota import admission
from wfm.cluster.quota.admission import judge
from wfm.cluster.quota.cluster import Cluster, Flavor, Group, Local, Queue, Quota
from wfm.cluster.quota.gangs import Gang, PodSet
from wfm.errors import DataError

FLAVORS = tuple(f"flavor-{number}" for number in range(6))


def cluster(each: int) -> Cluster:
    """A queue of six flavours with so much cpu in each."""
    shares = {(name, "cpu"): Quota(each) for name in FLAVORS}
    queue = Queue("q", "", shares, (Group(("cpu",), FLAVORS),), {})
    flavors = {name: Flavor(name) for name in FLAVORS}
    locals_ = {("wfm", "local"): Local("q")}
    return Cluster({"q": queue}, {}, flavors, locals_, {}, frozenset(), {}, {}, (), (), (), ())


def gang(*asks: int) -> Gang:
    sets = tuple(PodSet(f"s{place}", 1, {"cpu": amount}, {}, (), {}) for place, amount in enumerate(asks))
    return Gang("job", "JobSet", "", "wfm", "local", "", sets)


def test_like_sets_are_tried_once() -> None:
    """6 to the 20th ways; without what is remembered of them this does not end."""
    assert judge(gang(*[1000] * 20), cluster(4000)).state == "fits"
    assert judge(gang(*[1000] * 20, 10**9), cluster(20_000)).state == "never"
    assert judge(gang(*[1000] * 25), cluster(4000)).state == "never", "24 fit"


def test_too_many_ways_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_WAYS", 1000)
    with pytest.raises(DataError, match="JobSet job has 20 sets, which ClusterQueue q could spread"):
        judge(gang(*range(1000, 1020)), cluster(3100))  # three in each
