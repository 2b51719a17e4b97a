"""What the lint refuses, the schemas take: else the mutations of its tests would test nothing that a cluster lets pass."""

import pytest

from tests.cluster.strict import faults
from tests.wfm.cluster.lint import good
from tests.wfm.cluster.lint.test_lint import MUTATIONS


@pytest.mark.parametrize("name", good.SETS)
def test_what_is_good_is_taken_by_its_schema(name):
    assert [fault for each in good.SETS[name]() for fault in faults(each)] == []


def test_every_mutation_is_taken_by_its_schema():
    refused = []
    for mutation in MUTATIONS:
        if mutation.rule == "object":  # these are of kinds that no schema is kept of
            continue
        before = good.SETS[mutation.on]()
        found = [fault for each in mutation.made(before) if each not in before for fault in faults(each)]
        if bool(found) is mutation.schema_valid:
            refused.append((mutation.rule, mutation.on, mutation.what, found[:1]))
    assert refused == []
