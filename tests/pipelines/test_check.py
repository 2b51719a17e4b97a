"""Each static rule refuses its own fault and names the node."""

import pytest

from pipelines import check
from pipelines.check import check_graph, check_resources
from pipelines.dags.curate import curate
from pipelines.dags.decoder import decoder
from pipelines.dags.graph import Graph, GraphNode
from pipelines.dags.promotion import Promotion
from pipelines.dags.world_model import world_model
from pipelines.nodes import Node
from pipelines.plan import OPTIONAL
from pipelines.stages import STAGES, TABLE, Resources
from wfm.errors import ConfigError

GOOD = world_model({}, "", Promotion())
ALL = world_model({name: {} for name in OPTIONAL}, "", Promotion())


def _with(**changes: GraphNode) -> Graph:
    return GOOD.model_copy(update={"nodes": tuple(changes.get(node.name, node) for node in GOOD.nodes)})


def test_the_pipelines_keep_the_rules() -> None:
    check_graph(GOOD)
    check_graph(curate({}, "", Promotion()))
    check_graph(curate({}, "/some/videos", Promotion()))
    check_graph(ALL)


def test_every_stage_stands_in_the_main_job_or_in_the_decoders() -> None:
    beside = decoder({}, "", Promotion())
    check_graph(beside)
    assert {node.stage for node in (*ALL.nodes, *beside.nodes)} == set(STAGES)
    assert len(TABLE) == len(STAGES)


@pytest.mark.parametrize(
    ("node", "change", "says"),
    [
        ("split_clips", {"name": "score_clips"}, "stands in it twice"),
        ("split_clips", {"stage": "slit_clips"}, "unknown stage 'slit_clips'"),
        ("split_clips", {"inputs": {"videos": "write_shards"}}, "comes before its input"),
        ("split_clips", {"inputs": {"videos": "nowhere"}}, "not in the pipeline"),
        ("split_clips", {"inputs": {}}, "lacks its input 'videos'"),
        (
            "split_clips",
            {"inputs": {"videos": "simulate_videos"}},
            "wants 'videos', 'simulate_videos' makes 'raw_videos'",
        ),
        ("split_clips", {"inputs": {"videos": "ingest_videos", "more": "ingest_videos"}}, "unknown input 'more'"),
    ],
)
def test_a_broken_graph_is_refused(node: str, change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_graph(_with(**{node: GOOD.node(node).model_copy(update=change)}))


def test_resources_over_the_quota_are_refused() -> None:
    needs = Resources(gpu=8, replicas=64)
    nodes = [Node("train", "train_world_model", "train_world_model", {}, {}, resources=needs)]
    check_resources(nodes)
    nodes[0].resources = needs.model_copy(update={"replicas": 129})
    with pytest.raises(
        ConfigError, match=r"node 'train' asks for 1032 gpu \(8 a replica times 129\), the quota is 1024"
    ):
        check_resources(nodes)


def test_images_and_components_exist() -> None:
    assert list(check.images_exist(GOOD, set())) == []
    assert list(check.components_exist(GOOD, set())) == []
