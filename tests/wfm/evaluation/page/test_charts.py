import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from wfm.evaluation.page.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart_rows, line_chart, plain, ticks
from wfm.evaluation.page.data import Chart, Series


def chart(**changes) -> Chart:
    series = [Series(name="a", role="model_0", x=[0, 1, 2], y=[0.0, 5.0, 10.0], low=[0, 4, 9], high=[1, 6, 11])]
    return Chart(**{"title": "T", "x_label": "time, s", "y_label": "dB", "series": series, **changes})


def points(svg: str, kind: str) -> list[tuple[float, float]]:
    path = re.search(rf'<path class="{kind}[^"]*" d="M([^"]*)"', svg).group(1)
    return [tuple(map(float, pair.split())) for pair in path.split("L")]


def test_points_stand_where_their_values_say():
    found = points(line_chart(chart()), "line")
    assert [x for x, _ in found] == [LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT]
    heights = [y for _, y in found]
    assert heights[0] > heights[1] > heights[2]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)
    assert all(TOP <= y <= HEIGHT - BOTTOM for y in heights)


def test_a_log_axis_makes_equal_ratios_equal_and_leaves_out_what_it_cannot_show():
    series = [Series(name="loss", role="training", x=[0, 1, 2, 3], y=[100.0, 10.0, 1.0, 0.0])]
    found = [y for _, y in points(line_chart(chart(series=series, log_y=True)), "line")]
    assert len(found) == 3
    assert found[1] - found[0] == pytest.approx(found[2] - found[1], abs=0.11)


def test_it_is_well_formed_says_its_axes_and_escapes_names(hostile):
    series = [Series(name=hostile, role=hostile, x=[0, 1], y=[1.0, 2.0])]
    svg = line_chart(chart(series=series, title=hostile, x_label=hostile))
    root = ElementTree.fromstring(svg)
    assert not root.findall(".//script")
    assert root.attrib["role"] == "img"
    assert hostile in root.attrib["aria-label"]
    assert "role-other" in svg
    data = json.loads(root.attrib["data-chart"])
    assert data["series"][0]["y"] == [1.0, 2.0]
    assert "dB" in "".join(root.itertext())


def test_nothing_to_draw_is_still_a_chart():
    assert line_chart(chart(series=[])).startswith("<svg")
    assert chart_rows(chart(series=[])) == []
    flat = Series(name="one", role="flow", x=[3], y=[2.0])
    assert "<circle" in line_chart(chart(series=[flat]))


def test_the_table_reads_the_nearest_value_of_each_series():
    rows = chart_rows(
        chart(
            series=[
                Series(name="a", role="flow", x=[0, 1, 2], y=[0, 1, 2]),
                Series(name="b", role="flow", x=[0, 2], y=[5, 7]),
            ]
        )
    )
    assert rows == [("0", ["0", "5"]), ("1", ["1", "5"]), ("2", ["2", "7"])]
    many = Series(name="m", role="flow", x=list(range(1000)), y=[0.0] * 1000)
    assert 20 <= len(chart_rows(chart(series=[many]))) <= 26


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 8.9), (1e-6, 4e-6), (15, 36), (0, 120000), (2, 2)])
def test_ticks_are_round_few_and_inside(low, high):
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-9 <= value <= high + abs(high) * 0.2 + 1e-9 for value in found)


def test_plain_numbers():
    assert [plain(v) for v in (0, 0.25, 30, 1e6, 1e-5)] == ["0", "0.25", "30", "1e6", "1e-5"]
