import base64
import hashlib
import html.parser
import re

import pytest

from wfm.evaluation.page.data import PageData
from wfm.evaluation.page.write import duration, number, render, size, write_page


class Elements(html.parser.HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(page_data) -> str:
    return render(page_data)


def test_hostile_names_are_text_and_nothing_else(page, hostile):
    seen = Elements(page)
    assert len(seen.of("script")) == 1
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in seen.of("img"))
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert hostile not in page
    assert "&lt;script&gt;alert(" in page


def test_it_asks_nothing_of_any_network(page):
    seen = Elements(page)
    addresses = [
        value for _, attributes in seen.tags for name, value in attributes.items() if name in ("src", "href", "poster")
    ]
    assert addresses
    assert all(value.startswith(("data:", "#")) for value in addresses)
    outside = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    assert set(outside) <= {"http://www.w3.org"}  # the name of the SVG namespace, which nothing fetches
    assert "@import" not in page
    assert "url(" not in page


def test_the_page_allows_its_own_script_alone(page):
    policy = next(
        meta["content"] for meta in Elements(page).of("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_every_link_inside_leads_somewhere(page):
    seen = Elements(page)
    places = {attributes.get("id") for _, attributes in seen.tags}
    assert {link["href"].removeprefix("#") for link in seen.of("a")} <= places


def test_videos_play_inside_the_page(page, page_data):
    videos = Elements(page).of("video")
    assert len(videos) == len(page_data.predictions) + len(page_data.actions)
    assert all({"loop", "muted", "playsinline"} <= set(video) for video in videos)


def test_figures_on_the_page_are_those_of_the_metrics(page, page_data):
    gain = page_data.metrics[0].subsets["fixed_rate"].gains["sampled"]["repeat_last"].psnr_gain_db
    assert f"<b>{gain.mean:+.2f}</b> <small>[{gain.low:+.2f}, {gain.high:+.2f}]</small>".replace("-", "−") in page
    assert "Objects: the videos are not simulated" in page


def test_an_empty_page_says_so():
    text = render(PageData(title="Nothing yet", headline="Nothing was evaluated."))
    for sentence in (
        "No model was evaluated",
        "No example videos",
        "No curves",
        "No stages recorded",
        "No lineage recorded",
    ):
        assert sentence in text


def test_it_is_written_whole_and_small(tmp_path, page_data):
    path = tmp_path / "report" / "index.html"
    assert write_page(page_data, path) == path.stat().st_size < 8e6
    assert path.read_text().rstrip().endswith("</html>")
    assert [entry.name for entry in path.parent.iterdir()] == ["index.html"]


def test_a_name_that_is_no_text_at_all_does_not_stop_it(tmp_path):
    data = PageData(title="half a pair \ud83d", headline="x", sources=["\udcff.mp4"], source_count=1)
    assert write_page(data, tmp_path / "index.html") > 1000


def test_units():
    assert [duration(s) for s in (1.25, 185, 7800)] == ["1.2 s", "3 min 05 s", "2 h 10 min"]
    assert [size(b) for b in (512, 3 * 2**20, 3.5 * 2**30)] == ["512 B", "3 MiB", "3.50 GiB"]
    assert number(1234567) == "1\u202f234\u202f567"
