"""Where image files are: what is looked for, and what is said of those that do not exist."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from featurestore import FeatureStore, errors
from featurestore.images import MOST_NAMES, read_image
from featurestore.images.locate import look_for, twin
from tests.broken_images import encoded, picture
from tests.small import write_dataset

COMPOSED = "Hir\u00e9my.jpg"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def touch(folder: Path, *names: str) -> Path:
    """Make empty files below a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


# What is below the folder `pictures/art`, which is the folder of images; what the dataset says; and what would help.
HELP: list[tuple[list[str], list[str], str]] = [
    (["a.jpg", "b.jpg"], ["art/a.jpg", "art/b.jpg"], "begin with 'art', the folder's own name: give --images {above}"),
    (["a.jpg"], ["pictures/art/a.jpg"], "begin with 'pictures/art', the folder's own name: give --images {top}"),
    (["../a.jpg"], ["a.jpg"], "they are in {above}: give --images {above}"),
    (["x/y/a.jpg", "w/b.jpg"], ["a.jpg"], "they are in {images}/x/y: give --images {images}/x/y"),
    (["monet/a.jpg", "dix/b.jpg", "marc/c.jpg"], ["a.jpg", "b.jpg", "c.jpg"], "'a.jpg' is at 'monet/a.jpg': write"),
    (["x/a.jpg"], ["x\\a.jpg"], "the names have backslashes, and exist with / in their place"),
    (["a.jpg"], ["C:\\old\\a.jpg"], r"without 'C:\\old\\' before them the names exist"),
    (["monet/a.jpg"], ["home/me/monet/a.jpg"], "without 'home/me/' before them the names exist"),
    (["a.jpg"], ["https://example.org/a.jpg"], "the names are URLs: download the files"),
    (["a.jpg", "b.jpg"], ["a", "b"], "the names exist with .jpg at their end"),
    (["St. Ives.PNG"], ["St. Ives"], "the names exist with .PNG at their end"),
    (["a.png"], ["a.jpg"], "the names exist with .png in place of .jpg"),
    (["Monet/A.JPG"], ["monet/a.jpg"], "they are there with other upper and lower case"),
    (
        [f"{DECOMPOSED}/x.jpg"],
        [f"{COMPOSED}/x.jpg"],
        "they are there in another Unicode form: convert the dataset to NFD",
    ),
    ([COMPOSED], [DECOMPOSED], "they are there in another Unicode form: convert the dataset to NFC"),
    (["b.jpg", "c.jpg"], ["zebra.jpg"], "paths below {images}, which holds 'b.jpg', 'c.jpg': is it the right folder?"),
    ([".hidden"], ["zebra.jpg"], "which holds nothing: is it the right folder?"),
]


@pytest.mark.parametrize(("files", "names", "help_"), HELP, ids=[names[0] for _, names, _ in HELP])
def test_what_would_help_is_named(tmp_path: Path, files: list[str], names: list[str], help_: str) -> None:
    top = tmp_path.resolve()
    images = top / "pictures" / "art"
    images.mkdir(parents=True)
    touch(images, *files)
    dataset = tmp_path / "d.csv"
    dataset.write_text("filename,subset\n" + "".join(f"{name},train\n" for name in names), encoding="utf-8")
    with pytest.raises(errors.DatasetError) as refused:
        FeatureStore.create(tmp_path / "new" / "store", images=images, dataset=dataset)
    line = str(refused.value)
    many = "none of the" if len(names) > 1 else "the one image that was looked for does not exist"
    assert line.startswith(many)
    assert help_.format(images=images, above=images.parent, top=top) in line
    assert line.endswith(("? Nothing was made", ". Nothing was made"))
    assert "?." not in line
    assert not (tmp_path / "new" / "store").exists()


def test_what_would_help_most_names_is_named(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(9)]
    touch(tmp_path / "art", "x.jpg", "sub/0.jpg", *(f"{name.removesuffix('.jpg')}.png" for name in names[1:]))
    assert "the names exist with .png in place of .jpg" in str(look_for(tmp_path / "art", names))


def test_some_that_are_absent_are_counted(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", *(f"{i}.jpg" for i in range(5)))
    names = [*(f"{i}.jpg" for i in range(5)), "lost.jpg", "gone.jpg"]
    store = FeatureStore.create(
        tmp_path / "s",
        images=images,
        dataset=write_dataset(images, ["filename,subset", *(f"{n},train" for n in names)]),
    )
    assert store.ingested is not None
    (warning,) = store.ingested.warnings
    assert warning.startswith("2 of the 7 images that were looked for do not exist, for example 'lost.jpg'; ")


def test_an_ingest_looks_for_what_is_new_and_refuses_nothing(fresh: FeatureStore, tmp_path: Path) -> None:
    images = fresh.sql("SELECT filename, subset FROM images ORDER BY image_id").fetchall()
    lines = ["filename,subset", *(f"{name},{subset}" for name, subset in images)]
    assert fresh.ingest(write_dataset(tmp_path, lines)).warnings == []
    report = fresh.ingest(write_dataset(tmp_path, [*lines, "late.jpg,train"]))
    assert report.n_new == 1
    assert report.warnings[0].startswith("the one image that was looked for does not exist, for example 'late.jpg'; ")


def test_no_more_than_a_thousand_names_are_looked_for(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "0.jpg")
    found = look_for(images, [f"{i}.jpg" for i in range(3 * MOST_NAMES)])
    assert (found.n_looked, found.n_absent, found.example) == (MOST_NAMES, MOST_NAMES - 1, "'1.jpg'")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_what_can_not_be_asked_for_is_not_absent(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "closed/a.jpg")
    (images / "closed").chmod(0)
    try:
        assert look_for(images, ["closed/a.jpg"]).n_absent == 0
    finally:
        (images / "closed").chmod(0o700)


def test_a_name_that_no_file_can_have_is_absent(tmp_path: Path) -> None:
    assert look_for(tmp_path, ["x" * 5000, "a\0b"]).n_absent == 2


@pytest.mark.parametrize(("there", "asked"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_missing_image_tells_of_its_twin(tmp_path: Path, there: str, asked: str) -> None:
    folder = tmp_path / "\u00e9tude"
    folder.mkdir()
    (folder / there).write_bytes(encoded(".jpg", picture(seed=1)))
    found = read_image(str(folder / asked), max_pixels=10**6, truncated="refuse")
    assert found.status == "missing"
    assert found.message == (
        f"the file does not exist; there is a file of this name in another Unicode form ({there!a})"
    )
    assert twin(folder / "b\u00e9.jpg") is None
    assert twin(folder / there) == folder / there


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (DECOMPOSED, "one that looks the same and is written otherwise: 'Hir\\xe9my.jpg', and not 'Hire\\u0301my.jpg'"),
        ("Hir\u00e9\u200bmy.jpg", "is written otherwise: 'Hir\\xe9my.jpg', and not 'Hir\\xe9\\u200bmy.jpg'"),
        ("Hiremy.jpg", "did you mean 'Hir\u00e9my.jpg'?"),
    ],
)
def test_names_that_look_alike_are_told_apart(tmp_path: Path, asked: str, hint: str) -> None:
    images = touch(tmp_path / "images", COMPOSED)
    dataset = write_dataset(images, ["filename,subset", f"{COMPOSED},train"])
    store = FeatureStore.create(tmp_path / "s", images=images, dataset=dataset)
    with pytest.raises(errors.QueryError) as refused:
        store.info(asked)
    assert hint in str(refused.value)
