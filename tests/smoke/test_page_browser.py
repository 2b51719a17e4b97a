"""The pages in a real browser: they open from a file, play, step, switch, and show nothing wider than a phone.

Needs Debian's chromium and chromium-driver, which set-up installs: without them this test fails and is not skipped.
"""

import importlib.util
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wfm.errors import DataError

HERE = Path(__file__).resolve().parent
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def load(path: Path) -> Any:
    """A module by its path: the fixtures of the page's own tests."""
    spec = importlib.util.spec_from_file_location(path.parent.name + "_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from wfm.artifacts import Store
    from wfm.evaluation.page.config import PageConfig
    from wfm.evaluation.page.gather import gather
    from wfm.evaluation.page.write import write_page

    tests = HERE.parent / "wfm" / "evaluation"
    windows, runs = load(tests / "conftest.py"), load(tests / "page" / "conftest.py")
    folder = tmp_path_factory.mktemp("page")
    store = Store.open(str(folder / "store"))
    made = {family: windows.make_generated(9, family=family) for family in ("diffusion", "autoregressive")}
    data = gather(runs.build_run(store, made), store, PageConfig(examples=2, action_examples=1, rejected=4))
    write_page(data, folder / "report" / "index.html")
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert program, "chromium is missing: apt-get install chromium chromium-driver"
    assert driver, "chromedriver is missing: apt-get install chromium chromium-driver"
    options = Options()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(service=Service(driver), options=options)
    yield opened
    opened.quit()


@pytest.fixture
def at(browser: Any, page: Path) -> Callable[[int, int], Any]:
    """Open the page in a window of this width and height, as a phone or desktop would."""

    def open_at(width: int, height: int = 900) -> Any:
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
        browser.get(page.as_uri())
        return browser

    return open_at


def wait(question: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Ask until the answer is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := question():
            return answer
        time.sleep(0.05)
    raise AssertionError("the page did not come to it in time")


def times(browser: Any) -> list[float]:
    return browser.execute_script("return Array.from(document.querySelectorAll('video'), v => v.currentTime)")


@pytest.mark.parametrize("width", [390, 1280])
def test_it_opens_without_a_word_of_complaint_and_fits(at, width):
    browser = at(width)
    assert browser.find_element("css selector", ".headline").text.startswith("Given 5 frames")
    wait(
        lambda: browser.execute_script(
            "return Array.from(document.querySelectorAll('video')).every(v => v.readyState >= 2)"
        )
    )
    assert browser.execute_script("return Array.from(document.images).every(i => i.complete && i.naturalWidth > 0)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []


def test_nothing_is_asked_of_a_network(at):
    browser = at(1280)
    names = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in names if not name.startswith(("data:", "file:"))] == []


def test_videos_play_pause_and_step_together(at):
    browser = at(1280)
    play = browser.find_element("id", "play")
    browser.execute_script("document.querySelector('#predictions').scrollIntoView()")
    wait(lambda: times(browser)[0] > 0.05)  # they start by themselves
    play.click()
    assert play.text == "Play all"
    assert browser.execute_script("return Array.from(document.querySelectorAll('video')).every(v => v.paused)")
    position = browser.find_element("id", "position")

    def frame() -> int:
        return int(position.text.split()[1])

    browser.find_element("id", "forward").click()
    first = wait(lambda: position.text and frame())
    browser.find_element("id", "forward").click()
    wait(lambda: frame() == first % 13 + 1)
    wait(lambda: len({round(t, 3) for t in times(browser)}) == 1)  # every video shows the same frame
    browser.find_element("id", "back").click()
    wait(lambda: frame() == first)
    clock = browser.find_element("css selector", ".video-card .clock .when").text
    assert clock == "given" if first <= 5 else clock.startswith("predicted, +")
    play.click()
    stood = times(browser)[0]
    wait(lambda: times(browser)[0] != stood)


def test_subsets_switch_and_details_open(at):
    browser = at(1280)
    shown = [card for card in browser.find_elements("css selector", ".subset") if card.is_displayed()]
    assert [card.get_attribute("data-subset") for card in shown] == ["fixed_rate"]
    browser.find_element("css selector", ".segments [data-subset=static]").click()
    shown = [card for card in browser.find_elements("css selector", ".subset") if card.is_displayed()]
    assert [card.get_attribute("data-subset") for card in shown] == ["static"]
    details = shown[0].find_element("css selector", "details")
    assert not details.find_element("css selector", "table").is_displayed()
    details.find_element("css selector", "summary").click()
    assert "SSIM" in details.text


def test_charts_answer_the_pointer_and_lineage_lights_its_ancestors(at):
    from selenium.webdriver.common.action_chains import ActionChains

    browser = at(1280)
    chart = browser.find_element("css selector", "#curves svg.chart")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    ActionChains(browser).move_to_element(chart).perform()
    readout = chart.find_element("xpath", "./ancestor::figure").find_element("css selector", ".readout")
    wait(lambda: "Diffusion, sampled" in readout.text)
    names = {node.get_attribute("data-key"): node for node in browser.find_elements("css selector", ".lineage .node")}
    last = names["this page"]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", last)
    assert len(browser.find_elements("css selector", ".lineage .node.on")) == len(names)


def test_light_and_dark_differ(at):
    browser = at(1280)

    def ground() -> str:
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    before = ground()
    browser.find_element("id", "theme").click()
    assert ground() != before
    browser.find_element("id", "theme").click()
    assert ground() == before


def fits(browser: Any, path: Path, width: int) -> bool:
    """Whether a page shows nothing wider than its window."""
    shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    return browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_nothing_plays_and_the_last_prediction_is_shown(browser, at):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    )
    try:
        shown = at(1280)
        wait(lambda: min(times(shown)) > 0.5)  # 13 frames at 24 a second
        assert shown.find_element("css selector", ".video-card .clock .frame").text == "13 / 13"
        assert shown.find_element("css selector", ".video-card .clock .when").text == "predicted, +0.33 s"
        assert len(shown.find_elements("css selector", "video[poster^='data:image/jpeg']")) == len(times(shown))
        shown.find_element("id", "forward").click()
        wait(lambda: max(times(shown)) < 0.04)  # one on from the last is the first
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_result_of_one_session_runs_into_no_other_column(browser, tmp_path):
    """Words in place of an interval are longer than one: they took the next column and made the page scroll sideways."""
    from wfm.evaluation.page.data import PageData
    from wfm.evaluation.page.write import write_page

    made = load(HERE.parent / "wfm" / "catalogue" / "conftest.py")
    page = tmp_path / "index.html"
    write_page(PageData(title="T", headline="H", metrics=[made.make_metrics(sessions=1)]), page)
    for width in (390, 1200, 1400):
        assert fits(browser, page, width)
        assert overlaps(browser) == 0
        told = browser.find_element("css selector", ".subset:not([hidden]) .gains").text
        assert "one session: no interval" in " ".join(told.split())
    browser.execute_script(
        "document.head.insertAdjacentHTML('beforeend', '<style>.gains .value small.words "
        "{ white-space: nowrap; display: inline }</style>')"
    )
    assert overlaps(browser) > 0, "kept on one line, as it was, it does run into the next"


def overlaps(browser: Any) -> int:
    """How many figures of the first table reach into the column beside them."""
    rows = browser.execute_script(
        "return Array.from(document.querySelectorAll('.subset:not([hidden]) .gains .row:not(.heads):not(.scale)'), row =>"
        " Array.from(row.querySelectorAll('.value'), cell => { const range = document.createRange();"
        " range.selectNodeContents(cell); const box = range.getBoundingClientRect();"
        " return [box.left, box.right, box.width, box.top] }))"
    )
    assert rows
    found = 0
    for row in rows:
        for (_, right, _, top), (left, _, _, beside) in itertools.pairwise(cell for cell in row if cell[2]):
            found += right > left and abs(top - beside) < 8
    return found


@pytest.mark.parametrize("width", [390, 1400])
def test_the_catalogue_fits(browser, tmp_path, width):
    from wfm.artifacts import Store
    from wfm.catalogue import write_catalogue

    made = load(HERE.parent / "wfm" / "catalogue" / "conftest.py")
    long = made.HOSTILE + "-".join(["a_very_long_name"] * 12)
    store = Store.open(str(tmp_path / "store"), {"fsync": False})
    rights = [{"licence": long, "consent": long, "videos": 8, "clips": 20}]
    made.fill(store, card={"name": long}, dataset={"rights": rights, "clips_refused": {long: 5}})
    store.promote("model", "n" * 60, made.key_of("bundle"))
    write_catalogue(store, tmp_path / "site")
    for page in sorted((tmp_path / "site").rglob("*.html")):
        assert fits(browser, page, width), page
    browser.get((tmp_path / "site" / "index.html").as_uri())
    browser.find_element("link text", "tiny").click()
    wait(lambda: browser.current_url.endswith("/model/tiny/index.html"))
    assert "0.8 dB worse than optical flow" in browser.find_element("css selector", ".lost").text
    browser.find_element("link text", made.key_of("dataset")[:12]).click()
    wait(lambda: browser.current_url.endswith("/dataset/curated/index.html"))


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_of_thresholds_fits(browser, tmp_path, width):
    from wfm.curation.rows import Score
    from wfm.curation.select.select import Scored, SelectConfig
    from wfm.curation.select.threshold_report import page
    from wfm.records import Clip

    clip = Clip(
        clip_id="0" * 64, clip_sha256="1" * 64, video_id="2" * 64, source="/videos/a.mp4", session_id="s",
        start_seconds=0.0, end_seconds=2.0, start_pts=0, end_pts=48, time_base="1/24", num_frames=48, fps=24.0, width=128,
        height=128, path="clips/a.mp4", transcode="copy",
    )  # fmt: skip
    scored = []
    for k in range(4):
        scores = {
            "motion": 0.1 * k,
            "motion_source": "codec_vectors",
            "sharpness": 50.0,
            "brightness": 0.5,
            "contrast": 0.1,
        }
        zero = ("motion_patch_minimum", "pan_x", "pan_y", "static_share", "frozen_share", "black_share", "text_score")
        row = Score(
            clip_id=clip.clip_id, clip_sha256=clip.clip_sha256, moving_share=0.4, **scores, **dict.fromkeys(zero, 0.0)
        )
        scored.append(Scored(clip, row))

    def gone(clip: Clip) -> Path:
        raise DataError(f"{clip.path} is gone, and its name is long: " + "x" * 200)

    path = tmp_path / "thresholds.html"
    path.write_text(page(scored, SelectConfig(), gone, "dataset/" + "n" * 90))
    assert fits(browser, path, width)
    assert "What thresholds would drop" in browser.find_element("tag name", "h1").text
