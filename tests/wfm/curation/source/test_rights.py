"""Who may do what with a video: as a list says, else as its sidecar says, else unknown."""

import json
from pathlib import Path

from wfm.curation.source.rights import with_rights
from wfm.records import Rights, Video


def test_rights_come_from_the_list_then_from_the_sidecar(tmp_path: Path) -> None:
    stated = {"v1": {"licence": "CC-BY-4.0", "consent": "release form 12"}, "v2": {"license": "CC0-1.0"}, "v3": {}}
    for name, header in stated.items():
        (tmp_path / name).write_text(json.dumps({"schema_version": 1, "shots": [], **header}))
    videos = [Video(source=name, name=name, video_id=f"id {name}", attributes=name) for name in stated]
    listed = [Rights(source="v2", video_id="id v2", licence="mine", url="https://x"), Rights(source="v4", video_id="")]
    table = with_rights([*videos, Video(source="v4", name="v4")], lambda name: tmp_path / name, listed)
    names = ("licence", "consent", "rights_holder", "url")
    assert list(zip(*(table[name].to_pylist() for name in names), strict=True)) == [
        ("CC-BY-4.0", "release form 12", "unknown", "unknown"),
        ("mine", "unknown", "unknown", "https://x"),
        ("unknown",) * 4,
        ("unknown",) * 4,
    ]
    assert Video.from_table(table)[0].source == "v1"


def test_what_lists_say_of_copies_of_the_same_bytes_stands_side_by_side() -> None:
    copies = [Video(source=name, name=name, video_id="same") for name in ("a", "b")]
    listed = [
        Rights(source="b", video_id="same", licence="proprietary"),
        Rights(source="a", video_id="same", licence="CC0"),
    ]
    assert with_rights(copies, None, listed)["licence"].to_pylist() == ["CC0 | proprietary"] * 2
