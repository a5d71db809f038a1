"""Images that were chosen once: every verb reads the same of them, however the store changes, or says that it can't."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore import FeatureStore, Images
from featurestore.errors import NotReady, QueryError, StoreBusy
from tests.conftest import Samples
from tests.small import configure, context_of

TRAIN = "subset = 'train'"


def lines_of(samples: Samples) -> list[str]:
    return samples.dataset.read_text(encoding="utf-8").splitlines()


def ingest(store: FeatureStore, path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    store.ingest(path, yes=True)


def drop_chunk(store: FeatureStore, chunk_id: int) -> None:
    """Have quantize not run on a chunk."""
    with context_of(store).catalog.transaction() as sql:
        for table in ("partitions", "results"):
            sql.execute(f"DELETE FROM {table} WHERE stage = 'quantize' AND chunk_id = {chunk_id}")


def test_a_selection_says_what_it_is(finished: FeatureStore) -> None:
    images = finished.select(where=TRAIN)
    (variant,) = {stage.variant for stage in finished.status().stages if stage.stage == "quantize"}
    assert isinstance(images, Images)
    assert len(images) == 21 == len(images.image_ids)
    assert (images.stage, images.variant) == ("quantize", variant)
    assert repr(images) == f"<Images: 21 of quantize, variant {variant}, where subset = 'train'>"
    assert repr(finished.select(stage="extract")).startswith("<Images: 26 of extract, variant ")
    assert len(finished.select(where="false")) == 0


@pytest.mark.parametrize("stage", ["extract", "project", "quantize"])
def test_the_verbs_of_the_store_are_those_of_a_selection(finished: FeatureStore, tmp_path: Path, stage: str) -> None:
    images = finished.select(stage=stage, where=TRAIN)
    columns = ["image_id", "photo", "descriptors"]
    assert images.load().equals(finished.load(stage, TRAIN))
    assert images.load(columns, keypoints=True).equals(finished.load(stage, TRAIN, columns=columns, keypoints=True))
    parts = finished.iter_batches(4, stage=stage, where=TRAIN, columns=columns)
    assert [part.equals(other) for part, other in zip(images.batches(4, columns=columns), parts, strict=True)] == (
        [True] * 6
    )
    assert all(map(np.array_equal, images.matrix(), finished.matrix(stage, TRAIN)))
    for out, write in {"one": images.export, "other": finished.export}.items():
        chosen: dict[str, Any] = {} if write == images.export else {"stage": stage, "where": TRAIN}
        write(tmp_path / out, "parquet", **chosen)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_selection_can_be_read_again_and_again(finished: FeatureStore) -> None:
    images = finished.select(where="photo = 'china'")
    assert images.load(["rotation"]).column_names == ["rotation"]
    assert images.load().equals(finished.load(where="photo = 'china'"))
    assert len(list(images.batches(5))) == len(list(images.batches(5))) == 3


def test_one_place_describes_the_choice() -> None:
    """Every verb that takes a choice hands it to `select`, which alone describes its keywords."""
    keywords = {"stage", "where", "variant", "allow_missing"}
    assert set(inspect.signature(FeatureStore.select).parameters) == {"self", *keywords}
    for verb in (FeatureStore.load, FeatureStore.iter_batches, FeatureStore.matrix, FeatureStore.export):
        assert "choice" in inspect.signature(verb).parameters
        assert "`select`" in inspect.getdoc(verb)  # type: ignore[operator]


def test_a_keyword_that_there_is_not_is_named(finished: FeatureStore, tmp_path: Path) -> None:
    verbs: list[Callable[..., Any]] = [finished.load, finished.iter_batches, finished.matrix, finished.select]
    for verb in verbs:
        with pytest.raises(TypeError, match="'varaint'"):
            verb(varaint="1994")


def test_a_selection_stays_with_its_variant(store: FeatureStore) -> None:
    images = store.select()
    before = images.matrix()
    configure(store, "project", top=100)
    with pytest.raises(NotReady, match="lack quantize"):
        store.select()
    store.run(workers=0)
    assert all(map(np.array_equal, images.matrix(), before))
    assert store.select().variant != images.variant
    assert len(store.matrix().codes) < len(before.codes)


def test_a_variant_that_was_pruned_is_chosen_no_more(store: FeatureStore) -> None:
    images = store.select()
    configure(store, "quantize", bits=4)
    store.run(workers=0)
    store.prune()
    with pytest.raises(StoreBusy, match=r"is gone: .* or a prune has deleted it; .*, beginning with the choice of"):
        images.matrix()
    assert len(store.matrix().codes) > 0


def test_what_was_pending_stays_pending(store: FeatureStore) -> None:
    drop_chunk(store, 1)
    images = store.select(allow_missing=True)
    before = images.load(["image_id", "status", "error"])
    assert before["status"].to_pylist()[8:16] == ["pending"] * 8
    store.run(workers=0)
    assert store.matrix().codes.shape > images.matrix().codes.shape
    assert images.load(["image_id", "status", "error"]).equals(before)


def test_a_partition_that_was_replaced_is_said_by_every_verb(store: FeatureStore, tmp_path: Path) -> None:
    images = store.select()
    next(store.path.glob("partitions/quantize/*/chunk-000001-*")).unlink()  # as a retry removes what it replaces
    verbs: list[Callable[[], Any]] = [
        images.load,
        lambda: list(images.batches()),
        images.matrix,
        lambda: images.export(tmp_path / "out", "npy"),
    ]
    for verb in verbs:
        with pytest.raises(StoreBusy, match=r"is gone: most likely a run .* beginning with the choice of images"):
            verb()
    assert list(tmp_path.glob("*out*")) == []


def test_an_image_that_has_left_the_dataset_is_still_read(
    store: FeatureStore, samples: Samples, tmp_path: Path
) -> None:
    images = store.select()
    before = images.load()
    ingest(store, tmp_path / "less.csv", [line for line in lines_of(samples) if "flower" not in line])
    assert len(store.select()) < len(images) == 26
    assert images.load().equals(before)
    gone = 26 - len(store.select())
    verbs: list[Callable[[], Any]] = [
        lambda: images.load(["photo"]),
        lambda: images.batches(columns=["photo"]),
        lambda: images.export(tmp_path / "out", "parquet"),
    ]
    for verb in verbs:
        with pytest.raises(StoreBusy) as caught:
            verb()
        assert str(caught.value) == (
            f"{gone} of the chosen images have left the dataset in the meantime; choose the images again"
        )


def test_a_column_that_has_left_the_dataset_is_named(store: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    images = store.select()
    ingest(store, tmp_path / "narrow.csv", [",".join(line.split(",")[:2]) for line in lines_of(samples)])
    with pytest.raises(StoreBusy, match=r"^the column 'photo' has left the dataset in the meantime; choose"):
        images.load(["photo", "rotation"])


def test_columns_of_the_dataset_are_todays(store: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    images = store.select(where="photo = 'china'")
    ingest(store, tmp_path / "other.csv", [line.replace(",china,", ",porcelain,") for line in lines_of(samples)])
    assert set(images.load(["photo"])["photo"].to_pylist()) == {"porcelain"}
    assert len(images) == 13
    assert len(store.select(where="photo = 'china'")) == 0


def test_a_selection_is_handed_to_another_process_by_pickle(finished: FeatureStore) -> None:
    images = finished.select(where="photo = 'china'", stage="project")
    there: Images = pickle.loads(pickle.dumps(images))
    assert repr(there) == repr(images)
    assert there.load(["photo", "descriptors"]).equals(images.load(["photo", "descriptors"]))
    assert all(map(np.array_equal, there.matrix(), images.matrix()))


def test_an_untrusted_store_is_selected_from(finished: FeatureStore) -> None:
    images = FeatureStore.open_untrusted(finished.path).select(where=TRAIN)
    assert images.load(["photo", "descriptors"]).equals(finished.load(where=TRAIN, columns=["photo", "descriptors"]))


@pytest.mark.parametrize("name", ["model", "joblib"])
def test_models_are_of_no_selection(finished: FeatureStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(QueryError, match=f"^{name} holds models and no images; call FeatureStore.export instead"):
        finished.select().export(tmp_path / "out", name)
