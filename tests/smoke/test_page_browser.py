"""The page in a real browser: it opens from a file, plays, steps, switches, and shows nothing wider than a phone.

Needs Debian's chromium and chromium-driver, which set-up installs: without them this test fails and is not skipped.
"""

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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
