from hypothesis import given
from hypothesis import strategies as st

from wfm.artifacts.listing import FileEntry
from wfm.artifacts.pull import place


def targets(*paths):
    return {entry.path: target for entry, target in place([FileEntry(path, 0, "") for path in paths])}


def test_tables_of_parts_become_one_folder():
    assert targets("parts/a0/clips.parquet", "parts/b1/clips.parquet/0.parquet", "parts/a0/deep/x.parquet") == {
        "parts/a0/clips.parquet": "clips.parquet/a0.parquet",
        "parts/b1/clips.parquet/0.parquet": "clips.parquet/b1-0.parquet",
        "parts/a0/deep/x.parquet": "deep/x.parquet",
    }


def test_an_own_table_joins_the_folder_of_its_parts():
    assert targets("clips.parquet", "videos.parquet", "parts/a0/clips.parquet") == {
        "clips.parquet": "clips.parquet/own table.parquet",
        "videos.parquet": "videos.parquet",
        "parts/a0/clips.parquet": "clips.parquet/a0.parquet",
    }


def test_the_same_path_in_two_parts_keeps_the_part():
    assert targets(
        "parts/a0/card.json", "parts/b1/card.json", "parts/a0/only.json", "card.txt", "parts/a0/card.txt"
    ) == {
        "parts/a0/card.json": "parts/a0/card.json",
        "parts/b1/card.json": "parts/b1/card.json",
        "parts/a0/only.json": "only.json",
        "card.txt": "card.txt",
        "parts/a0/card.txt": "parts/a0/card.txt",
    }


PATHS = st.sampled_from(
    ["x", "d/x", "t.parquet", "t.parquet/0.parquet", "t.parquet/own table.parquet", "t.parquet/a0.parquet"]
)


@given(st.sets(PATHS, max_size=4), st.sets(st.tuples(st.sampled_from(["a0", "b1"]), PATHS), max_size=6))
def test_no_two_files_go_to_one_place(own, parts):
    if "t.parquet" in own and any(path.startswith("t.parquet/") for path in own):
        return  # cannot be: a name is a file or a folder
    for name in ("a0", "b1"):
        inner = {path for part, path in parts if part == name}
        if "t.parquet" in inner and any(path.startswith("t.parquet/") for path in inner):
            return
    placed = place([FileEntry(path, 0, "") for path in [*own, *(f"parts/{part}/{path}" for part, path in parts)]])
    found = [target for _, target in placed]
    assert len(set(found)) == len(found)
    assert not any(
        one != two and two.startswith(one + "/") for one in found for two in found
    )  # no file is also a folder
