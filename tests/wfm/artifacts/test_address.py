import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfm.artifacts.address import check_key, check_name, id_time, new_id, parse_address, safe_path
from wfm.errors import InputError


class TestParseAddress:
    @pytest.mark.parametrize(
        ("given_url", "url"),
        [
            ("/a/b/", "file:///a/b"),
            ("file:///a/b", "file:///a/b"),
            ("file:///a%20b c", "file:///a%20b c"),
            ("/a/x/../b", "file:///a/b"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("s3://bucket", "s3://bucket"),
            ("gs://bucket/x", "gs://bucket/x"),
        ],
    )
    def test_addresses_are_made_canonical(self, given_url, url):
        assert parse_address(given_url).url == url
        assert parse_address(url).url == url

    def test_a_relative_path_is_made_absolute(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert parse_address("store").root == str(tmp_path / "store")

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ("", "empty"),
            ("a\nb", "control"),
            ("ftp://x/y", "unknown scheme 'ftp': choose one of file, s3, gs"),
            ("file://host/x", "three slashes"),
            ("s3:/bucket/x", "lacks a slash: write s3://"),
            ("s3://", "no bucket"),
            ("s3:///x", "no bucket"),
            ("s3://bucket/../other", r"'\.\.'"),
        ],
    )
    def test_wrong_ones_are_refused(self, wrong, words):
        with pytest.raises(InputError, match=words):
            parse_address(wrong)

    def test_credentials_in_the_url_are_refused_and_not_repeated(self):
        with pytest.raises(InputError, match="credentials") as caught:
            parse_address("s3://AKIA123:hunter2@bucket/x")
        assert "hunter2" not in str(caught.value)
        assert "AKIA123" not in str(caught.value)


class TestSafePath:
    @pytest.mark.parametrize(
        "path", ["a", "a/b.txt", "with space/quote'\".mp4", "ünï😀", "...", "a..b", ".hidden", "-x", "a=b/c"]
    )
    def test_plain_paths_pass(self, path):
        assert safe_path(path) == path

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "/a",
            "..",
            "a/../b",
            "../a",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "a\\b",
            "a\0b",
            "a\nb",
            "a\x7f",
            "\udcff",
            "x" * 241,
            "x/" * 500,
        ],
    )
    def test_others_are_refused(self, path):
        with pytest.raises(InputError, match="not allowed"):
            safe_path(path)

    @given(st.text(max_size=40))
    def test_what_passes_stays_below_its_folder(self, path):
        import posixpath

        try:
            safe_path(path)
        except InputError:
            return
        joined = posixpath.normpath(posixpath.join("/root", path))
        assert joined == f"/root/{path}"
        assert path.encode().decode() == path


def test_keys_and_names():
    assert check_key("0f" * 32) == "0f" * 32
    for key in ("0F" * 32, "0f" * 31, "0f" * 32 + "\n", None, "../" + "0" * 61):
        with pytest.raises(InputError):
            check_key(key)
    assert check_name("world-model_1.0", "name") == "world-model_1.0"
    for name in ("", ".", "..", "-x", "a/b", "a b", "a\n", "x" * 129, "é"):
        with pytest.raises(InputError, match="alias"):
            check_name(name, "alias")


def test_ids_sort_by_time_and_are_unique():
    ids = []
    for _ in range(5):
        ids.append(new_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    many = [new_id() for _ in range(1000)]
    assert many == sorted(many)
    assert len({each[:18] for each in many}) == 1000  # by their times alone: no two share a millisecond
    assert abs(id_time(ids[-1]) - time.time()) < 5
    assert id_time("not-an-id") == 0.0
