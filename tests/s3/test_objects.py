"""The objects of a bucket as a source of images, and what the service may answer."""

from __future__ import annotations

from itertools import repeat
from typing import get_args

import pytest

from featurestore.errors import DatasetError, ImagesGone, UnreadableFile
from featurestore.images import image_at, look_for_images, open_images, read_image
from featurestore.images.image_object import RunObject
from featurestore.images.sources.base import Missing, ReadFailed, TooLarge
from featurestore.images.sources.object_store import Objects
from featurestore.rows import Status
from featurestore.system import object_store
from tests.broken_images import encoded, picture
from tests.s3.conftest import Bucket
from tests.s3.proxy import Fault

LIMIT = 2**20
PICTURE = encoded(".png", picture(seed=1))


@pytest.fixture
def objects(bucket: Bucket) -> Objects:
    """Two images, and what is none."""
    for name in ("p/a.png", "p/b/ü 100%.png", "p/notes.txt", "p/.hidden.png", "pp/c.png"):
        bucket.put(name, PICTURE)
    return Objects(f"s3://{bucket.name}/p")


def test_a_list_has_names_sizes_and_versions(objects: Objects, bucket: Bucket) -> None:
    entries = list(objects.entries())
    assert [entry.name for entry in entries] == ["a.png", "b/ü 100%.png"]
    assert bucket.service.asked == {"LIST": 1}
    for entry in entries:
        assert entry.n_bytes == len(PICTURE)
        assert objects.stat(entry.name) == entry
        assert objects.read(entry.name, LIMIT) == PICTURE
    bucket.put("p/a.png", PICTURE[::-1])
    after = objects.stat("a.png")
    assert after.n_bytes == entries[0].n_bytes
    assert after.version != entries[0].version, "the ETag tells"
    assert bucket.service.asked == {"LIST": 1, "HEAD": 3, "GET": 2}


def test_what_is_absent_or_too_large(objects: Objects, bucket: Bucket) -> None:
    for name in ("c.png", "a.png/x.png", "a\nb.png"):
        with pytest.raises(Missing):
            objects.stat(name)
        with pytest.raises(Missing):
            objects.read(name, LIMIT)
    with pytest.raises(TooLarge) as found:
        objects.read("a.png", 10)
    assert (found.value.n_bytes, found.value.head) == (len(PICTURE), PICTURE)
    assert (
        Objects(f"s3://{bucket.name}/nothing").why_absent() == f"there are no objects below s3://{bucket.name}/nothing"
    )
    assert "NoSuchBucket" in str(Objects("s3://no-such-bucket").why_absent())
    with pytest.raises(ReadFailed, match="NoSuchBucket"):
        Objects("s3://no-such-bucket").read("a.png", LIMIT)


@pytest.mark.parametrize("fault", get_args(Fault))
def test_every_fault_is_tried_again(
    objects: Objects, bucket: Bucket, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PAUSE", 0.01)
    bucket.service.spoil(iter([fault, fault]))
    assert objects.read("a.png", LIMIT) == PICTURE
    bucket.service.spoil(iter([fault, fault]))
    assert objects.stat("a.png").n_bytes == len(PICTURE)
    bucket.service.spoil(iter([fault, fault]))
    assert [entry.name for entry in objects.entries()] == ["a.png", "b/ü 100%.png"]
    assert bucket.service.injected[fault] == (1 if fault == "slow" else 2), "or the test would show nothing"


def test_a_list_that_is_cut_off_goes_on(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has a thousand names on a page, and the second page is spoilt."""
    monkeypatch.setattr(object_store, "PAUSE", 0.01)
    for n in range(1003):
        bucket.put(f"p/{n:04d}.png", b"")
    for fault in ("cut", "denied"):
        bucket.service.spoil(iter([None, fault]))
        names = [entry.name for entry in Objects(f"s3://{bucket.name}/p").entries()]
        assert names == [f"{n:04d}.png" for n in range(1003)]
        assert bucket.service.asked == {"LIST": 3}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("denied", "403 Forbidden"),
        ("503", "503 Service Unavailable"),
        ("refused", "no connection to http"),
    ],
)
def test_a_service_that_goes_on_failing_ends_a_run(
    bucket: Bucket, objects: Objects, fault: Fault, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PAUSE", 0.01)
    monkeypatch.setattr(object_store, "RETRIES", 1)
    images = open_images(objects, read=[], wanted=["a.png"])
    failing = Objects(objects.where)
    monkeypatch.setattr("featurestore.images.image_object.opened_at", lambda where: failing)
    bucket.service.spoil(repeat(fault))
    message = f"^the images can't be read: {objects.where}/a.png gave {said}.* Nothing of this is recorded; [^\n]*$"
    with pytest.raises(ImagesGone, match=message):
        read_image(images.file("a.png"), max_pixels=LIMIT, truncated="refuse")
    with pytest.raises(ImagesGone, match=message):
        images.refuse_if_gone("a.png", "absent")
    with pytest.raises(UnreadableFile, match=said):
        failing.stat("a.png")
    with pytest.raises(DatasetError, match=said):
        list(failing.entries())


def test_one_get_answers_all_that_a_run_asks_of_an_image(bucket: Bucket, objects: Objects) -> None:
    images = open_images(objects, read=[], wanted=["a.png"])
    image = images.file("a.png")
    assert isinstance(image, RunObject)
    bucket.service.spoil(iter(()))
    assert image.peek(LIMIT) == PICTURE
    state = image.state()
    bucket.put("p/a.png", b"replaced")
    assert image.read(LIMIT) == PICTURE, "what the state belongs to"
    assert bucket.service.asked == {"GET": 1}
    assert image.state() != state
    assert image.read(LIMIT) == b"replaced"
    other = open_images(objects, read=[], wanted=["a.png"]).file("a.png")
    assert isinstance(other, RunObject)
    bucket.put("p/a.png", PICTURE)
    assert other.peek(LIMIT) == PICTURE, "another run begins with nothing"


def test_an_object_that_is_missing_is_a_row_and_an_emptied_prefix_is_none(bucket: Bucket, objects: Objects) -> None:
    images = open_images(objects, read=["b/ü 100%.png"], wanted=["a.png"])
    bucket.delete("p/a.png")
    image = read_image(images.file("a.png"), max_pixels=LIMIT, truncated="refuse")
    assert (image.status, image.message) == (Status.MISSING, "there is no object of this name")
    images.refuse_if_gone("a.png", "missing")
    bucket.delete("p/b/ü 100%.png")
    with pytest.raises(ImagesGone, match=r"nothing in s3://.* is there any more, the last time a.png"):
        images.refuse_if_gone("a.png", "missing")
    with pytest.raises(ImagesGone, match=r"there are none in s3://.*, though some were read from it before"):
        open_images(objects, read=["b/ü 100%.png"], wanted=["a.png"])


def test_hints_for_names_that_are_not_there(bucket: Bucket, objects: Objects) -> None:
    whole = Objects(f"s3://{bucket.name}")
    assert look_for_images(whole, ["a.png"]).hint == f"they are in 'p' there: give --images 's3://{bucket.name}/p'"
    assert "without 'p/' before them the names exist" in look_for_images(objects, ["p/a.png"]).hint
    assert read_image(image_at(objects.where, "a.png"), max_pixels=LIMIT, truncated="refuse").status == Status.OK
