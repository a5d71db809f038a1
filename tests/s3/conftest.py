"""An S3 server that these tests share, and a proxy before it. `make test-s3` says where the server is."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from featurestore.storage import object_file, remote_partitions
from featurestore.system import object_store
from tests.s3.proxy import Proxy

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def service() -> Iterator[Proxy]:
    """The proxy, as the endpoint of the environment."""
    server = os.environ.get("FEATURESTORE_S3_SERVER")
    if not server:
        pytest.skip("no S3 server; `make test-s3` installs one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(process, port)
        with Proxy(port) as proxy, pytest.MonkeyPatch.context() as patch:
            for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": proxy.url}.items():
                patch.setenv(name, value)
            yield proxy
            proxy.shutdown()
    finally:
        process.terminate()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server has ended"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server does not start")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed requests are tried again as often as always, without the long waits."""
    for module in (object_store, remote_partitions):
        monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(object_store, "FIRST_WAIT", timedelta(milliseconds=2))
    monkeypatch.setattr(object_store, "LONGEST_WAIT", timedelta(milliseconds=20))
    object_file._OPEN.clear()


class Bucket:
    """An empty bucket of its own for each test."""

    def __init__(self, service: Proxy, name: str) -> None:
        self.name, self.service = name, service
        self.where = f"s3://{name}/p"
        service.make_bucket(name)
        self._store = S3Store(name, endpoint=f"http://127.0.0.1:{service.port}", client_options={"allow_http": True})

    def put(self, name: str, data: bytes) -> None:
        obstore.put(self._store, name, data)

    def upload(self, folder: Path, below: str) -> str:
        """Upload the pictures of a folder, and return their address."""
        for path in sorted(folder.glob("*.png")):
            self.put(f"{below}/{path.name}", path.read_bytes())
        return f"s3://{self.name}/{below}"

    def names(self, below: str) -> list[str]:
        """Return the names of the objects below a prefix."""
        return [meta["path"] for page in obstore.list(self._store, below) for meta in page]

    def delete(self, *names: str) -> None:
        obstore.delete(self._store, list(names))


@pytest.fixture
def bucket(service: Proxy, request: pytest.FixtureRequest) -> Bucket:
    service.spoil(iter(()))
    return Bucket(service, f"bucket-{abs(hash(request.node.name))}")
