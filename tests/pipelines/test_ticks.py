"""Runs that stand for a time or a shard: placeholders, ids, times."""

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.request import Request
from pipelines.ticks import at_time, begin_of, has_places, iso, next_time, of_shard, shards_of, times
from wfm.artifacts.address import NAME_PATTERN
from wfm.cluster.names import is_dns_1035
from wfm.errors import InputError

AT = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)


def test_an_id_is_a_function_of_what_is_asked_and_of_the_time() -> None:
    request = Request("world_model", profile="smoke", videos="s3://b/{date:%Y/%m/%d}/")
    point = at_time(request, AT)
    assert point.run_id == "world-model-smoke-20261130t0300z-3a19b28d", "another id would have done runs made again"
    assert point.run_id == at_time(request, AT.astimezone()).run_id
    assert point.request.videos == "s3://b/2026/11/30/"
    assert (point.name, point.scheduled_at) == ("2026-11-30T03:00:00Z", "2026-11-30T03:00:00Z")
    others = [
        at_time(request, AT + timedelta(minutes=1)), at_time(Request("curate", profile="smoke", videos=request.videos), AT),
        at_time(Request("world_model", videos=request.videos), AT), at_time(Request("world_model", profile="smoke"), AT),
        of_shard(Request("world_model", profile="smoke"), "a"), of_shard(Request("world_model", profile="smoke"), "A"),
    ]  # fmt: skip
    ids = [point.run_id, *(one.run_id for one in others)]
    assert len(set(ids)) == len(ids)
    for one in ids:
        assert NAME_PATTERN.fullmatch(one)
        assert is_dns_1035(one), "a name on a cluster, too"


def test_placeholders_are_filled_wherever_they_may_stand() -> None:
    request = Request(
        "curate", videos="/v/{date}", dataset="day-{date:%j}", overrides=("a.b=x-{date:%H%M}", 'a.c={"d": 1}')
    )
    filled = at_time(request, AT).request
    assert (filled.videos, filled.dataset) == ("/v/2026-11-30T03:00:00Z", "day-334")
    assert filled.overrides == ("a.b=x-0300", 'a.c={"d": 1}')
    assert of_shard(Request("curate", videos="/v/{shard}/x"), "07").request.videos == "/v/07/x"
    assert has_places(request)
    assert not has_places(Request("curate", videos="/v"))


@pytest.mark.parametrize(
    ("videos", "words"),
    [
        ("/v/{day}", "unknown placeholder {day}. Choices: {date:%Y-%m-%d}, {date}, {shard}"),
        ("/v/{}", "unknown placeholder"),
        ("/v/{date!r}", "unknown placeholder"),
        ("/v/{date.year}", "unknown placeholder"),
        ("/v/{date:%c}", "its format may have"),
        ("/v/{date:%Y %m}", "its format may have"),
        ("/v/{date:}", "its format may have"),
        ("/v/{date:%Y", "a brace stands alone"),
        ("/v/{{date}}", "a brace stands alone"),
        ("/v/date}", "a brace stands alone"),
        ("/v/{shard}", "these runs stand for times"),
    ],
)
def test_a_placeholder_that_is_none_is_refused(videos: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        at_time(Request("curate", videos=videos), AT)
    assert "--videos" in str(error.value)
    assert words in str(error.value)


def test_a_shard_has_no_time() -> None:
    with pytest.raises(InputError, match="stand for shards"):
        of_shard(Request("curate", videos="/v/{date}"), "a")
    for shard in ("", "a/b", "..", "-a"):
        with pytest.raises(InputError, match="a shard is"):
            of_shard(Request("curate"), shard)
    assert shards_of("3") == ["0", "1", "2"]
    assert shards_of("11")[:2] == ["00", "01"]
    assert shards_of("b, a") == ["b", "a"]
    for text in ("0", "10001", "a,,b", "a,a", ""):
        with pytest.raises(InputError, match="--shards"):
            shards_of(text)


def test_times_of_a_line_in_a_zone_that_changes_its_clocks() -> None:
    begin, end = (
        begin_of("2026-10-24", "--from", "Europe/Berlin"),
        begin_of("2026-10-26", "--to", "Europe/Berlin", end=True),
    )
    found = times("0 3 * * *", begin, end, "Europe/Berlin")
    assert [iso(when) for when in found] == ["2026-10-24T01:00:00Z", "2026-10-25T02:00:00Z", "2026-10-26T02:00:00Z"]
    assert times("0 3 * * *", AT, AT + timedelta(seconds=1)) == [AT], "from on, and before to"
    assert times("0 3 * * *", AT - timedelta(seconds=1), AT) == []
    assert next_time("0 3 * * *", AT) == AT + timedelta(days=1)
    with pytest.raises(InputError, match="more than 10000"):
        times("* * * * *", AT, AT + timedelta(days=8))
    for line in ("", "0 3 * *", "0 3 * * * *", "61 * * * *", "0 3 31 2 x"):
        with pytest.raises(InputError, match="five fields"):
            times(line, AT, AT + timedelta(days=1))
    for text in ("yesterday", "2026-13-01", "2026-11-31", "2026-11-01T25:00", "0001-01-01", "9999-12-31"):
        with pytest.raises(InputError, match="--from"):
            begin_of(text, "--from", "UTC")
    for zone in ("../etc/passwd", "Mars/Base", ""):
        with pytest.raises(InputError, match="not a zone"):
            begin_of("2026-11-01", "--from", zone)
