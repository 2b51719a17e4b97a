import re
import xml.etree.ElementTree as ElementTree

from wfm.evaluation.page.data import LineageNode
from wfm.evaluation.page.lineage import layers, lineage_svg


def node(key: str, *parents: str, name: str = "") -> LineageNode:
    return LineageNode(key=key, name=name or key, kind="k", parents=list(parents))


def test_everything_stands_below_what_it_is_made_from():
    nodes = [node("d", "b", "c"), node("a"), node("b", "a"), node("c", "b"), node("e", "a")]
    rows = [{n.key for n in layer} for layer in layers(nodes)]
    assert rows == [{"a"}, {"b", "e"}, {"c"}, {"d"}]


def test_an_edge_that_another_implies_is_held_back():
    svg = lineage_svg([node("a"), node("b", "a"), node("c", "a", "b")])
    found = dict(re.findall(r'<path class="(edge[^"]*)" data-from="(\w)" data-to="c"', svg))
    assert found == {"edge implied": "a", "edge": "b"}


def test_unknown_parents_and_circles_do_not_break_it():
    assert lineage_svg([]) == ""
    assert 'data-key="a"' in lineage_svg([node("a", "gone", "a"), node("b", "c"), node("c", "b")])


def test_names_are_escaped_and_long_ones_cut(hostile):
    root = ElementTree.fromstring(lineage_svg([node("a", name=hostile), node("b", "a", name="x" * 99)]))
    assert not [element for element in root.iter() if element.tag in ("script", "img")]
    texts = [element.text for element in root.iter("text")]
    assert max(map(len, texts)) <= 30
    assert any(hostile in (title.text or "") for title in root.iter("title"))
