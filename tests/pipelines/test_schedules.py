"""Which times passed without a run: of many the latest, and one schedule that cannot be looked at hides no other."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.remote import Recurring
from pipelines.engines.schedule_book import Kept, _folder
from pipelines.schedules import _remote_clock, here
from pipelines.wfm_home import write_private
from wfm.artifacts import Store, schema

NOW = 1_790_000_000.0


def keep(name: str, store: str, **changes: Any) -> None:
    fields = {"request": {"pipeline": "curate"}, "cron": "* * * * *", "since": 0.0, **changes}
    one = Kept(name=name, store=store, **fields)
    write_private(_folder() / f"{name}.json", schema.encode(one.model_dump()).decode())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFM_HOME", str(tmp_path / "home"))


def test_of_more_times_than_anybody_fills_the_latest_are_told(tmp_path: Path) -> None:
    keep("each-minute", Store.open(tmp_path / "store").url)
    keep("once", Store.open(tmp_path / "store").url, cron="0 3 1 * *", since=NOW - 40 * 86400)
    began = time.monotonic()
    each, once = here(NOW)
    assert time.monotonic() - began < 10.0
    now = datetime.fromtimestamp(NOW, UTC).replace(second=0, microsecond=0)
    assert len(each.missed) == 200
    assert each.missed[-1] == now.strftime("%Y-%m-%dT%H:%M:%SZ"), "the latest that is past"
    assert once.missed == [f"{now:%Y-%m}-01T03:00:00Z"]
    last, store = "2026-01-01T00:00:00Z", Store.open(tmp_path / "store")
    for lines in (("* * * * *",), ("* * * * *", "*/7 * * * *")):
        clock = _remote_clock("argo", Recurring("x", "x", lines, "UTC", False, last=last), store, now)
        assert len(clock.missed) == 200
    assert (
        _remote_clock("argo", Recurring("x", "x", ("0 3 * * *",), "UTC", False, last=last), store, now).missed[0] > last
    )


def test_a_store_that_is_not_there_hides_no_other_schedule(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no store")
    keep("broken", (tmp_path / "file").as_uri(), since=NOW - 86400)
    keep("good", Store.open(tmp_path / "store").url, cron="0 3 * * *", since=NOW - 86400)
    keep("odd", Store.open(tmp_path / "store").url, since=NOW - 86400, request={"pipeline": 5})
    broken, good, odd = here(NOW)
    assert len(good.missed) == 1
    assert broken.words.startswith("cannot be looked at: ")
    assert odd.words.startswith("cannot be looked at: ")


def test_a_line_that_only_its_engine_understands_is_told_of(tmp_path: Path) -> None:
    now, store = datetime.fromtimestamp(NOW, UTC), Store.open(tmp_path / "store")
    for line, zone in (("@daily", "UTC"), ("*/30 * * * * *", "UTC"), ("0 3 * * *", "Mars/Base")):
        clock = _remote_clock("argo", Recurring("x", "x", (line,), zone, False, words="w"), store, now)
        assert (clock.state, clock.next) == ("active", "")
        assert clock.words.startswith("w; its times are not known here: ")
