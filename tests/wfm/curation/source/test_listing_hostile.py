"""Lists from outside: no row reaches what its writer may not have, and none ends the run."""

import functools
import http.server
import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.artifacts import Store
from wfm.curation.source.ingest import IngestConfig, examine
from wfm.curation.source.listing import list_source
from wfm.curation.source.source_files import SourceFile
from wfm.data.places import ADDRESSES_VARIABLE
from wfm.errors import InputError

Serve = Any


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    return Store.open(tmp_path / "store")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; ``/hop/x`` leads to the same path on 127.0.0.2."""

    def send_head(self) -> Any:
        if self.path.startswith("/hop/"):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.2:{self.server.server_port}/{self.path[5:]}")  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if self.path == "/slow.txt":
            self.send_response(200)
            self.end_headers()
            for number in range(20 if self.command == "GET" else 0):
                self.wfile.write(f"{number}.mp4\n".encode())
                time.sleep(0.01)
            return None
        return super().send_head()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """(a folder, the address at which it is served); that address alone is open to us."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(ADDRESSES_VARIABLE, "127.0.0.1")
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def reasons(url: str, store: Store) -> dict[str, str]:
    """Source -> code of the reason after listing and examining, "" for a file that could be read at all."""
    found = {}
    for file in list_source(url, store).files:
        row, _ = examine(file, store, IngestConfig())
        found[file.source] = row.reason.partition(":")[0]
    return found


def test_a_list_from_the_web_names_no_file_of_this_machine(web: tuple[Path, str], store: Store, tmp_path: Path) -> None:
    """Of the old code each of these was read: its hash, and what is wrong with it, stood in the table."""
    folder, url = web
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as packed:
        packed.writestr("a.mp4", b"secret")
    (folder / "a.mp4").write_bytes(b"theirs")
    names = [
        f"file://{secret}", f"local://{secret}", f"zip://a.mp4::file://{tmp_path}/films.zip", f"simplecache::file://{secret}",
        f"file://{tmp_path}/films.zip!/a.mp4", f"dir://x::file://{tmp_path}", "memory://x", f"FILE://{secret}",
    ]  # fmt: skip
    (folder / "list.jsonl").write_text(lines(*({"source": name} for name in names), {"source": "a.mp4"}))
    found = reasons(f"{url}/list.jsonl", store)
    assert found == {**dict.fromkeys(names, "refused_place"), f"{url}/a.mp4": "not_a_video"}
    (folder / "list.txt").write_text(f"{secret}\n../../secret.mp4\n")
    found = reasons(f"{url}/list.txt", store)
    assert sorted(found.values()) == ["not_found", "unsafe_name"], "an absolute path is one of the list's own server"


def test_a_chain_does_not_evade_what_archives_may_claim(store: Store, tmp_path: Path) -> None:
    """The old code unpacked 300 MiB of a zip of 299 KiB that a local list named by a chain."""
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.mp4", bytes(2 << 20))
    chain = f"zip://a.mp4::file://{tmp_path}/bomb.zip"
    (tmp_path / "list.jsonl").write_text(lines({"source": chain}, {"source": f"{tmp_path}/bomb.zip!/a.mp4"}))
    assert set(reasons(str(tmp_path / "list.jsonl"), store).values()) == {"refused_place", "zip_bomb"}


def test_redirects_and_hosts_of_a_list_are_filtered_by_row(web: tuple[Path, str], store: Store) -> None:
    folder, url = web
    (folder / "a.mp4").write_bytes(b"theirs")
    port = url.rpartition(":")[2]
    names = (
        f"{url}/hop/a.mp4",
        f"http://127.0.0.2:{port}/a.mp4",
        f"http://[::1]:{port}/a.mp4",
        f"http://0.0.0.0:{port}/a.mp4",
    )
    more = (
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/x",
        "http://2852039166/x",
        "http://10.0.0.1/x.zip!/a",
    )
    (folder / "list.jsonl").write_text(
        lines(*({"source": name} for name in (*names, *more)), {"source": f"{url}/a.mp4"})
    )
    found = reasons(f"{url}/list.jsonl", store)
    assert found == {**dict.fromkeys((*names, *more), "refused_place"), f"{url}/a.mp4": "not_a_video"}


def test_a_redirect_that_comes_after_the_listing_fails_alone(web: tuple[Path, str], store: Store) -> None:
    _, url = web
    row, _ = examine(SourceFile(f"{url}/hop/a.mp4", "a.mp4", 6, "etag:None:6"), store, IngestConfig())
    assert (row.status, row.reason.partition(":")[0]) == ("failed", "refused_place")
    row, _ = examine(SourceFile("http://127.0.0.1:9/a.mp4", "a.mp4", 6, "etag:None:6"), store, IngestConfig())
    assert (row.status, row.reason.partition(":")[0]) == ("failed", "unreachable")


def test_sidecars_stay_where_the_list_or_the_video_lies(web: tuple[Path, str], store: Store, tmp_path: Path) -> None:
    """The old code read ``../secret.json`` and any absolute path, and copied it beside the rows."""
    folder, url = web
    inside, videos = tmp_path / "in", tmp_path / "videos"
    inside.mkdir()
    videos.mkdir()
    told = json.dumps({"session_id": "mine", "shots": []})
    for place in (inside / "own.json", videos / "beside.json", tmp_path / "secret.json", folder / "web.json"):
        place.write_text(told)
    (inside / "a.mp4").write_bytes(b"x")
    (videos / "b.mp4").write_bytes(b"x")

    def problem(source: str, sidecar: str, place: Path = inside, where: str = "") -> str:
        (place / "list.jsonl").write_text(lines({"source": source, "attributes": sidecar}))
        (file,) = list_source(where or str(place / "list.jsonl"), store).files
        return file.problem.partition(":")[0]

    beside = str(videos / "beside.json")
    assert [problem("a.mp4", "own.json"), problem("a.mp4", str(inside / "own.json"))] == ["", ""]
    assert problem(str(videos / "b.mp4"), beside) == ""
    wrong = (
        "../secret.json",
        str(tmp_path / "secret.json"),
        beside,
        f"{url}/web.json",
        "x/../own.json",
        "wfm://" + "0" * 64 + "/x",
    )
    assert [problem("a.mp4", name) for name in wrong] == ["bad_sidecar"] * len(wrong)
    (folder / "sub").mkdir()
    (folder / "sub" / "a.mp4").write_bytes(b"x")
    listed = functools.partial(problem, place=folder, where=f"{url}/list.jsonl")
    assert [listed("sub/a.mp4", name) for name in (f"{url}/web.json", f"{url}/sub/../web.json")] == ["", "bad_sidecar"]
    for name in (
        "../web.json",
        f"file://{tmp_path}/secret.json",
        f"{url.replace('.0.0.1', '.0.0.2')}/x",
        f"{url}/sub/a.mp4?sig=1",
    ):
        assert listed("sub/a.mp4", name) == "bad_sidecar"


BAD = [
    *({"source": name} for name in ("zzz://a/b.mp4", "http://[::1/x.mp4", "http:///x", "data://x", "x" * 5000 + ".mp4")),
    *({"source": name} for name in ("a\nb.mp4", "a\ud800.mp4", "/dev/zero", "/proc/self/environ", "/sys/kernel/x", "\0")),
    *({"source": name} for name in ("s3://user:password@bucket/x", "wfm://" + "0" * 64 + "/x", "gone.zip!/a", "dir/", "../x")),
    *({"source": "g.mp4", "session_id": value} for value in ("x" * 10**6, 7, None, ["a"], {"a": 1}, float("nan"), 10**400)),
    *({"source": "g.mp4", "attributes": value} for value in ("/etc/passwd", "/dev/zero", "..", "http://127.0.0.1:9/x", "a\0b")),
    *({}, [], None, 3, "g.mp4", {"source": ""}, {"source": ["g.mp4"]}, {"source": "g.mp4", "nested": [[[[]]]]}),
]  # fmt: skip


@pytest.mark.parametrize("row", BAD, ids=lambda row: repr(row)[:40])
def test_one_bad_row_is_a_failed_row(store: Store, tmp_path: Path, row: Any) -> None:
    """Of the old code most of these ended the run."""
    (tmp_path / "fine.mp4").write_bytes(b"x")
    (tmp_path / "g.mp4").write_bytes(b"y")
    (tmp_path / "dir").mkdir()
    (tmp_path / "list.jsonl").write_text(lines({"source": "fine.mp4"}, row))
    rows = {file.source: file for file in list_source(str(tmp_path / "list.jsonl"), store).files}
    assert rows.pop(str(tmp_path / "fine.mp4")).problem == ""
    (bad,) = rows.values()
    assert bad.problem
    assert "password" not in repr(bad)
    assert len(repr(bad)) < 10_000
    (tmp_path / "list.jsonl").write_text(lines(row))
    assert [file.problem for file in list_source(str(tmp_path / "list.jsonl"), store).files] == [
        bad.problem.replace("line 2", "line 1")
    ]


def test_bytes_that_are_no_text_fail_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "list.txt").write_bytes(b"a.mp4\nb\xff.mp4\n" + b"c" * 10**6 + b"\n")
    found = [file.problem.partition(":")[0] for file in list_source(str(tmp_path / "list.txt")).files]
    assert sorted(found) == ["", "unsafe_name", "unsafe_name"]  # the old code: InputError
    (tmp_path / "list.jsonl").write_bytes(b'{"source": "a.mp4"}\n{"source": "\xff"}\n')
    found = [file.problem.partition(":")[0] for file in list_source(str(tmp_path / "list.jsonl")).files]
    assert sorted(found) == ["", "bad_row"]


_LIST_WITHIN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from wfm.curation.source.listing import list_source
print(sorted({file.problem.partition("its")[2] for file in list_source(sys.argv[1]).files}))
"""


def test_a_few_bytes_of_parquet_claim_no_gigabytes(tmp_path: Path) -> None:
    """Rows that share one text of a million characters. The old code held them all: a MemoryError under this limit."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 10**6]))
    names = pa.array([f"{number}.mp4" for number in range(20_000)])
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"source": names, "session_id": text}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1 << 20
    ran = subprocess.run([sys.executable, "-c", _LIST_WITHIN, str(path)], capture_output=True, text=True, check=False)
    assert ran.stdout == "[' session_id has 1,000,000 characters, at most 1,000 are taken']\n", ran.stderr[-300:]


def test_a_row_of_a_table_that_names_nothing_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    pq.write_table(pa.table({"source": ["a.mp4", None, ""]}), tmp_path / "list.parquet")
    found = {file.name: file.problem for file in list_source(str(tmp_path / "list.parquet")).files}
    assert found["a.mp4"] == ""
    assert (
        found["list.parquet row 2"] == "bad_row: row 2 of list.parquet: it names no source"
    )  # the old code: InputError
    assert len(found) == 3


def test_web_videos_that_are_named_themselves(web: tuple[Path, str], store: Store) -> None:
    """The old code put a second http:// before the address."""
    folder, url = web
    (folder / "a.mp4").write_bytes(b"x")
    (file,) = list_source(f"{url}/a.mp4", store).files
    assert (file.source, file.size) == (f"{url}/a.mp4", 1)


def test_a_list_that_comes_in_pieces_is_read_to_its_end(web: tuple[Path, str], store: Store) -> None:
    """From a server that states no size the old code took the first piece for the whole: 1 of 20 rows."""
    assert len(list_source(f"{web[1]}/slow.txt", store).files) == 20


def test_a_parquet_list_that_ends_its_reader_is_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics that contradict the schema end the process in pyarrow (SIGABRT): 2 of 10,000 mutations ended `wfm` itself."""
    from wfm.curation.source import listing_rows

    path = tmp_path / "l.parquet"
    pq.write_table(pa.table({"source": ["a.mp4"]}), path)
    (file,) = list_source(str(path)).files
    assert file.name == "a.mp4"
    monkeypatch.setattr(listing_rows, "_LOOK", "import os; os.abort()")
    with pytest.raises(InputError, match="ends whatever looks at it"):
        list_source(str(path))
