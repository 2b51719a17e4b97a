"""Places for the contracts of the store: a local folder, and S3 over HTTP (moto's server)."""

import itertools

import pytest

from wfm.artifacts import Store

SECRET = "not-a-real-secret-9f3a"
_bucket_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_options():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {"key": "contract-tests", "secret": SECRET, "endpoint_url": f"http://{host}:{port}", "retry_seconds": 5.0}
    server.stop()


@pytest.fixture(params=["file", "s3"])
def place(request, tmp_path, monkeypatch):
    """(url, options) of an empty store."""
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    if request.param == "file":
        return f"file://{tmp_path}/store", {}
    import s3fs

    options = request.getfixturevalue("s3_options")
    bucket = f"contract-{next(_bucket_numbers)}"
    client = {name: value for name, value in options.items() if name != "retry_seconds"}
    s3fs.S3FileSystem(**client).mkdir(bucket)
    return f"s3://{bucket}/some/prefix", options


@pytest.fixture
def store(place):
    return Store.open(*place)
