"""What `wfm status` says of part ranges: which are made, which are not, and why."""

from pathlib import Path

from pipelines.runs.seen import ranges_in_words, read_tries, see
from wfm.artifacts import Store
from wfm.artifacts.runs import Run


def tried(run: Run, parts: str, outcome: str = "", reason: str = "") -> None:
    number = run.append_attempt("split_clips", {"parts": parts} if parts else {})
    if outcome:
        run.write_outcome("split_clips", number, {"outcome": outcome, "reason": reason})


def test_the_last_try_at_each_range_is_told_and_what_was_not_begun(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    run = store.runs.create({"nodes": [{"name": "split_clips", "stage": "split_clips"}]})
    assert ranges_in_words(read_tries(run)) == []
    tried(run, "0/7", "bug", "ours")
    for parts in ("0/7", "1/7", "2/7"):
        tried(run, parts, "done")
    tried(run, "3/7", "try_again", "the disk was full")
    tried(run, "6/7")
    tried(run, "4/5", "cached")
    assert ranges_in_words(read_tries(run)) == [
        "split_clips, of 7 ranges of parts: 3 done, 2 not begun; 3/7 try_again: the disk was full; 6/7 running",
        "split_clips, of 5 ranges of parts: 1 done, 4 not begun",
    ]
    state = see(run)
    assert state is not None
    assert state.nodes["split_clips"].state == "running"


def test_many_failed_ranges_take_one_line_and_a_spoilt_record_none(tmp_path: Path) -> None:
    run = Store.open(tmp_path / "store").runs.create({})
    for index in range(20):
        tried(run, f"{index}/20", "wrong_input", "no")
    tried(run, "x/" + "9" * 90, "done")
    one, other = ranges_in_words(read_tries(run))
    assert one.startswith("split_clips, of 20 ranges of parts: 0 done; 0/20 wrong_input: no; 1/20")
    assert one.endswith("7/20 wrong_input: no; and 12 more")
    assert other.endswith("ranges of parts: 1 done")
