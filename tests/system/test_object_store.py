"""Clients of object stores say why a service was not reached. What needs a service is in `tests/s3`."""

from __future__ import annotations

from datetime import timedelta

import pytest

from featurestore.system import ObjectClient, RequestFailed, object_store, unreadable


def test_an_endpoint_that_is_not_reached_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = "http://127.0.0.1:1"
    variables = ("ACCESS_KEY_ID", "someone"), ("SECRET_ACCESS_KEY", "secret"), ("ENDPOINT_URL_S3", endpoint)
    for name, value in variables:
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("FIRST_WAIT", "LONGEST_WAIT"):
        monkeypatch.setattr(object_store, name, timedelta(milliseconds=1))
    with pytest.raises(RequestFailed, match=rf"^no connection to {endpoint}: Connection refused$"):
        ObjectClient("s3://bucket/p").head("x")


def test_what_helps_with_an_object_is_not_what_helps_with_a_file() -> None:
    said = str(unreadable("s3://bucket/p/x", "404 Not Found (NoSuchBucket)"))
    assert said.endswith(
        "check the network, the credentials, the endpoint and the bucket, then run the same command again"
    )
    assert "check the disk, the network or the machine" in str(unreadable("/p/x", "Input/output error"))
