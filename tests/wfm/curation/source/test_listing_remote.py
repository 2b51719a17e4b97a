"""Videos in a bucket: listed like a folder; a missing bucket or refused credentials are wrong input, and stay secret."""

import base64
import hashlib
import http.server
import io
import json
import random
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from wfm.credentials import without_credentials
from wfm.curation.source.extensions import IMAGES
from wfm.curation.source.listing import list_source
from wfm.data.source import open_source
from wfm.errors import InputError, TryAgain, WfmError

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


def boto_client(server: str) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=server)


@pytest.fixture
def bucket(server: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    client = boto_client(server)
    client.create_bucket(Bucket="films")
    yield lambda key, body=b"x": client.put_object(Bucket="films", Key=key, Body=body)
    for item in client.list_objects_v2(Bucket="films").get("Contents", []):
        client.delete_object(Bucket="films", Key=item["Key"])


def test_objects_without_an_ending_are_told_by_their_first_bytes(bucket: Any) -> None:
    bucket("in/0123abc", b"\x1a\x45\xdf\xa3" + bytes(99))  # Matroska's first bytes; it was left aside
    bucket("in/README", b"words")
    bucket("in/odd", bytes(range(256)))
    bucket("in/a.bin", b"\x1a\x45\xdf\xa3")  # a foreign ending costs a bucket no request
    found = list_source("s3://films/in")
    assert [file.name for file in found.files] == ["0123abc", "odd"]
    assert found.aside == {"other_ending": 2}


def test_still_images_are_listed_beside_videos(bucket: Any) -> None:
    for key in ("in/a.mp4", "in/a.jpg", "in/b.PNG", "in/c.webp", "in/d.heic", "in/a.attributes.json"):
        bucket(key)
    bucket("in/0123", b"\x89PNG\r\n\x1a\n" + bytes(40))
    found = list_source("s3://films/in")
    assert [file.name for file in found.files] == ["0123", "a.jpg", "a.mp4", "b.PNG", "c.webp"]
    assert found.aside == {"other_ending": 1}
    assert found.files[1].attributes == "s3://films/in/a.attributes.json"
    left = list_source("s3://films/in", leave_aside=IMAGES)
    assert [file.name for file in left.files] == ["0123", "a.mp4"]  # what has no ending is told when it is read
    assert left.aside == {"other_ending": 4}
    bucket("only/a.jpg")
    with pytest.raises(InputError, match=r"no video files in .*1 other_ending"):
        list_source("s3://films/only", leave_aside=IMAGES)


def test_a_prefix_is_read_like_a_folder(bucket: Any) -> None:
    for key in (
        "in/videos/a b.mp4",
        "in/videos/deep/c.mp4",
        "in/videos/.h.mp4",
        "in/videos/n.txt",
        "in/actions/a b.parquet",
    ):
        bucket(key)
    found = list_source("s3://films/in/videos")
    assert [file.source for file in found.files] == ["s3://films/in/videos/a b.mp4", "s3://films/in/videos/deep/c.mp4"]
    assert found.files[0].actions == "s3://films/in/actions/a b.parquet"
    assert found.aside == {"hidden": 1, "other_ending": 1}
    assert list_source("s3://films/in/videos") == found
    assert [file.name for file in list_source("s3://films/in/**/*.mp4").files] == [".h.mp4", "a b.mp4", "c.mp4"]
    bucket("in/videos/a b.mp4", b"other bytes")
    assert list_source("s3://films/in/videos").files[0].stamp != found.files[0].stamp


def test_a_key_that_climbs_is_refused(bucket: Any) -> None:
    bucket("in/x/../y.mp4")
    (file,) = list_source("s3://films/in").files
    assert file.problem.startswith("unsafe_name")


def test_one_object_and_a_list(bucket: Any) -> None:
    bucket("in/a.mp4")
    bucket("in/list.txt", b"a.mp4\ngone.mp4\n")
    assert [file.name for file in list_source("s3://films/in/a.mp4").files] == ["a.mp4"]
    found = {file.name: file.problem.split(":")[0] for file in list_source("s3://films/in/list.txt").files}
    assert found == {"a.mp4": "", "gone.mp4": "not_found"}


def test_a_bucket_is_opened_once_until_the_credentials_change(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    bucket("in/a.mp4")
    rows = [{"source": f"s3://films/in/{name}.mp4", "view": name} for name in ("gone", "a", "b")]
    bucket("in/list.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    opened: list[str] = []
    whole = fsspec.core.url_to_fs
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url, **options: opened.append(url) or whole(url, **options))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of this test")
    found = list_source("s3://films/in/list.jsonl").files
    assert [(file.name, file.view, bool(file.problem)) for file in found] == [
        ("a.mp4", "a", False),
        ("b.mp4", "", True),
        ("gone.mp4", "", True),
    ]
    assert len(opened) == 1, "for the list, and for all that it names"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    list_source("s3://films/in/list.jsonl")
    assert len(opened) == 2


def test_a_remote_video_is_downloaded_once_and_checked(bucket: Any, tmp_path: Any) -> None:
    from wfm.artifacts import Store
    from wfm.data.local import known_hash

    store = Store.open(tmp_path / "store")
    bucket("in/a.mp4", b"some bytes")
    path = open_source(store, "s3://films/in/a.mp4")
    digest = known_hash(path)
    assert path.read_bytes() == b"some bytes"
    assert open_source(store, "s3://films/in/a.mp4", digest) == path
    bucket("in/a.mp4", b"some other bytes")
    with pytest.raises(InputError, match="has changed since it was ingested"):
        open_source(store, "s3://films/in/a.mp4", digest)


def test_the_buckets_own_checksum_names_a_video_before_a_byte_is_read(bucket: Any, server: str, tmp_path: Any) -> None:
    from wfm.artifacts import Store
    from wfm.data import source

    store = Store.open(tmp_path / "store")
    client = boto_client(server)
    client.put_object(Bucket="films", Key="in/whole.mp4", Body=b"bytes", ChecksumAlgorithm="SHA256")
    bucket("in/crc.mp4", b"bytes")
    upload = {"Bucket": "films", "Key": "in/pieces.mp4"}
    upload["UploadId"] = client.create_multipart_upload(**upload, ChecksumAlgorithm="SHA256")["UploadId"]
    piece = client.upload_part(**upload, PartNumber=1, Body=b"bytes", ChecksumAlgorithm="SHA256")
    parts = [{"PartNumber": 1, "ETag": piece["ETag"], "ChecksumSHA256": piece["ChecksumSHA256"]}]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    names = ("whole", "crc", "pieces")
    stated = [source.stated_digest(store, f"s3://films/in/{name}.mp4") for name in names]
    digest = hashlib.sha256(b"bytes").hexdigest()
    assert stated == [digest, "", ""], "a checksum of the checksums of pieces is not one of the bytes"
    assert not (tmp_path / "cache" / "sources").exists(), "nothing was downloaded"
    assert [source.fetch_source(store, f"s3://films/in/{name}.mp4")[1] for name in names] == [digest] * 3


def test_bytes_that_the_buckets_checksum_denies_are_damaged(bucket: Any, server: str, tmp_path: Any) -> None:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    from wfm.artifacts import Store
    from wfm.curation.source import ingest

    boto_client(server).put_object(Bucket="films", Key="in/a.mp4", Body=b"bytes", ChecksumAlgorithm="SHA256")
    kept = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].get_object("films", "in/a.mp4")
    kept.checksum_value = base64.b64encode(hashlib.sha256(b"other bytes").digest()).decode()
    (file,) = list_source("s3://films/in").files
    row, _ = ingest.examine(file, Store.open(tmp_path / "store"), ingest.IngestConfig())
    assert (row.status, row.reason.split(":")[0]) == ("failed", "checksum_mismatch")
    assert row.video_id == ""
    assert list((tmp_path / "cache" / "sources").iterdir()) == [], "nothing of it is kept"


def test_a_purged_video_is_not_even_fetched(bucket: Any, server: str, tmp_path: Any) -> None:
    from wfm.artifacts import Store
    from wfm.artifacts.purge import carry_out, find_video
    from wfm.curation.source import ingest

    store = Store.open(tmp_path / "store")
    carry_out(store, find_video(store, hashlib.sha256(b"bytes").hexdigest()), "asked by its author")
    boto_client(server).put_object(Bucket="films", Key="in/a.mp4", Body=b"bytes", ChecksumAlgorithm="SHA256")
    (file,) = list_source("s3://films/in").files
    row, _ = ingest.examine(file, store, ingest.IngestConfig())
    assert row.reason.startswith("purged: ")
    assert not (tmp_path / "cache" / "sources").exists()


def test_an_object_that_left_after_it_was_listed_fails_alone(bucket: Any, server: str, tmp_path: Any) -> None:
    from wfm.artifacts import Store
    from wfm.curation.source import ingest

    bucket("in/a.mp4")
    (file,) = list_source("s3://films/in").files
    boto_client(server).delete_object(Bucket="films", Key="in/a.mp4")
    row, _ = ingest.examine(file, Store.open(tmp_path / "store"), ingest.IngestConfig())
    assert row.reason.startswith("not_found: ")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_members_of_an_archive_in_a_bucket(
    bucket: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from wfm.artifacts import Store
    from wfm.data import archive

    films = {f"{number}.mp4": random.Random(number).randbytes(2**20) for number in range(9)}
    path = tmp_path / "packed"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as opened:
            for name, data in films.items():
                opened.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as tar:
            for name, data in films.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    bucket(f"in/films.{kind}", path.read_bytes())
    found = list_source("s3://films/in").files
    assert [file.source for file in found] == [f"s3://films/in/films.{kind}!/{name}" for name in films]
    store = Store.open(tmp_path / "store")
    asked: list[int] = []
    read = archive._Remote.read

    def counted(self: Any, size: int = -1) -> bytes:
        asked.append(len(data := read(self, size)))
        return data

    monkeypatch.setattr(archive._Remote, "read", counted)
    assert open_source(store, found[0].source).read_bytes() == films["0.mp4"]
    assert open_source(store, found[5].source).read_bytes() == films["5.mp4"]
    assert kind == "tar.gz" or sum(asked) < 2 * 2**20 + 1000, "what lies before and behind stays in the bucket"

    def broken(self: Any, size: int = -1) -> bytes:
        with self._named():
            raise ConnectionResetError("connection reset")

    monkeypatch.setattr(archive._Remote, "read", broken)
    with pytest.raises(TryAgain, match="does not answer"):
        open_source(store, found[7].source)
    archive._indexes.clear()
    bucket(f"in/films.{kind}", path.read_bytes() + bytes(512))
    with pytest.raises(TryAgain, match="does not answer"):
        list_source("s3://films/in")


def test_a_missing_bucket_is_wrong_input(bucket: Any) -> None:
    with pytest.raises(InputError, match="s3://no-such-bucket/x"):
        list_source("s3://no-such-bucket/x")


def test_an_empty_prefix_is_wrong_input(bucket: Any) -> None:
    bucket("elsewhere/a.mp4")
    with pytest.raises(InputError, match="s3://films/nothing"):
        list_source("s3://films/nothing")


class Refuses(http.server.BaseHTTPRequestHandler):
    """Answers as S3 does to a wrong key, echoing it."""

    status, code = 403, "InvalidAccessKeyId"

    def _answer(self) -> None:
        echoed = f"<Message>key {KEY_ID}</Message><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId>"
        body = f"<Error><Code>{self.code}</Code>{echoed}</Error>"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    do_GET = do_HEAD = _answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def refusing(credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def everything_said(error: BaseException | None) -> str:
    """The message and all that a traceback would show."""
    import traceback

    return "".join(traceback.format_exception(error)) if error is not None else ""


def test_wrong_credentials_are_wrong_input_and_never_printed(refusing: None, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="refused us") as raised:
        list_source("s3://films/in")
    said = everything_said(raised.value) + caplog.text
    assert SECRET not in said
    assert KEY_ID not in said


def test_no_answer_is_worth_another_try(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TryAgain, match="does not answer"):
        list_source("s3://films/in")


@pytest.mark.parametrize("url", [f"s3://{KEY_ID}:{SECRET}@films/in", f"https://h/x.mp4?X-Amz-Signature={SECRET}"])
def test_credentials_in_a_url_are_refused_unseen(url: str) -> None:
    with pytest.raises(WfmError, match="carries credentials") as raised:
        list_source(url)
    assert SECRET not in everything_said(raised.value)


def test_secrets_are_blanked(credentials: None) -> None:
    assert without_credentials(f"key {KEY_ID} secret={SECRET}, token: abc") == "key *** secret=***, token: ***"
