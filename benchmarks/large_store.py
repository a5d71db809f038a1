"""A store of 100,000 images with an index of 180 million entries, made up for the time that a search of it takes.

Each image has 1,800 descriptors. One of each painting is itself; the others are copies of paintings whose codes are
those of the painting with their components moved along, so that they match nothing. In the index a copy has the words
of its painting, so that some words occur together, with signatures of other descriptors of these words, of which an
eighth of the bits is flipped. A descriptor of a query has its true neighbour and thousands that are near by chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.replicate import chunks_of, pruned, written
from featurestore import FeatureStore
from featurestore.catalog import Step, WritableContext, record_model, resolve
from featurestore.progress import Silent
from featurestore.rows import Row, Status
from featurestore.stages import FitWords, TransformStage
from featurestore.stages.codebook import learn_words, rotation
from featurestore.storage import IMAGES, PartitionFile, model_id, model_name, read_arrays, to_bitmap, write_arrays
from featurestore.system import one_blas_thread

FULL = 1800  # descriptors of an image
CHUNK = 1000


@dataclass(frozen=True)
class Paintings:
    """What the images are copies of.

    Args:
        rows: paintings with `FULL` codes.
        words: ``(paintings, FULL)`` uint32.
        bits: ``(paintings * FULL, 8)`` uint8, the signatures.
        order: ``(paintings * FULL,)`` int64, descriptors in the order of their words.
        starts: ``(words + 1,)`` int64, where those of each word begin in ``order``.
    """

    rows: list[Row]
    words: NDArray[np.uint32]
    bits: NDArray[np.uint8]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]


def make_large(scratch: Path, source: FeatureStore, n: int, *, n_words: int) -> FeatureStore:
    """Make the store without an index file, or go on with it: chunks that are there stay.

    Args:
        scratch: folder for it.
        source: with paintings, and the stages of an index.
        n: images.
        n_words: of the codebook.
    """
    path = scratch / f"large-{n}"
    if not (path / "dataset").is_dir():
        _begin(path, n)
    store = FeatureStore(path)
    store.index()
    rows = [row for row in data.rows(source, "quantize") if row.n_descriptors == FULL]
    with store._held("fill", Silent()) as context:
        context.catalog.migrate()
        if not _models(context):
            _copy_models(context, source)
            _record_words(context, _codebook(source, n_words))
        _fill(context, source, _paintings(context, rows))
    return store


def _begin(path: Path, n: int) -> None:
    images = path.parent / f"{path.name}-images"  # none is ever read, and no store is made where none exists
    images.mkdir(parents=True, exist_ok=True)
    names = [f"{i:06d}.jpg" for i in range(n)]
    (images / names[0]).touch()
    dataset = data.write_dataset(path.parent / f"{path.name}.csv", names)
    FeatureStore.create(path, images=images, dataset=dataset, chunk_size=CHUNK)


def _models(context: WritableContext) -> list[Any]:
    with context.catalog.reading() as connection:
        return connection.execute("SELECT * FROM models WHERE stage = 'fit_words'").fetchall()


def _copy_models(context: WritableContext, source: FeatureStore) -> None:
    for model in sorted(source.path.glob("models/*/*/*.npz")):
        name = model.relative_to(source.path).as_posix()
        if "fit_words" not in name:
            context.root.local(name).parent.mkdir(parents=True, exist_ok=True)
            context.root.local(name).write_bytes(model.read_bytes())
            record_model(context.root, context.catalog, name)


def _codebook(source: FeatureStore, n_words: int) -> dict[str, NDArray[Any]]:
    """Return a codebook learnt from all codes of a store, with the bounds of its codes."""
    (path,) = source.path.glob("models/fit_words/*/*.npz")
    bounds = {name: value for name, value in read_arrays(path)[0].items() if name in ("low", "high")}
    values = source.dequantize(source.matrix().codes)
    with one_blas_thread():
        cells, words, starts = learn_words(values, n_words, seed=0)
    turned = rotation(values.shape[1], seed=0)
    return {"cells": cells, "words": words, "starts": starts, "rotation": turned, **bounds}


def _record_words(context: WritableContext, codebook: dict[str, NDArray[Any]]) -> None:
    """Record a codebook as the model of fit_words."""
    steps = _steps(context)
    step, stage = steps["fit_words"], steps["fit_words"].stage
    assert isinstance(stage, FitWords)
    variant = str(step.variant)
    sample: dict[str, NDArray[Any]] = {
        "sample": np.zeros((1, len(codebook["low"])), np.uint8),
        "keys": np.zeros(1, np.uint64),
    }
    arrays: dict[str, NDArray[Any]] = {**sample, **codebook, IMAGES: to_bitmap(np.zeros(1, np.int64))}
    manifest = {
        **{"stage": stage.name, "version": stage.version, "parameters": stage.parameters(), "variant": variant},
        **{"reads_variant": step.reads_variant, "parent_id": None, "generation": 0, "partial": False, "versions": {}},
        "summary": stage.summary(arrays),
    }
    name = model_name(stage.name, variant, model_id(variant, arrays))
    with context.root.publishing(name) as temporary:
        write_arrays(temporary, arrays, manifest)
    record_model(context.root, context.catalog, name)


def _steps(context: WritableContext) -> dict[str, Step]:
    with context.catalog.reading() as connection:
        return {step.stage.name: step for step in resolve(connection, context.flow)}


def _paintings(context: WritableContext, rows: list[Row]) -> Paintings:
    """Return the words and signatures of paintings under the codebook of the store."""
    steps = _steps(context)
    stage, model = steps["words"].stage, steps["fit_words"].current_model
    assert isinstance(stage, TransformStage)
    assert model is not None
    arrays = read_arrays(context.root.local(model.path))[0]
    with one_blas_thread():
        made = [stage.apply(row, arrays) for row in rows]
    words = np.array([row.extra["word"] for row in made], np.uint32)
    bits = np.concatenate([row.descriptors for row in made if row.descriptors is not None])
    order = np.argsort(words.ravel(), kind="stable")
    starts = np.searchsorted(words.ravel()[order], np.arange(len(arrays["words"]) + 1))
    return Paintings(rows, words, bits, order, starts)


def _fill(context: WritableContext, source: FeatureStore, paintings: Paintings) -> None:
    with PartitionFile(data.partitions(source, "quantize")[0]) as file:
        layout = replace(file.layout, compression="none")
    with PartitionFile(data.partitions(source, "words")[0]) as file:
        of_words = file.layout
    steps = _steps(context)
    with context.catalog.reading() as connection:
        done = {i for (i,) in connection.execute("SELECT chunk_id FROM partitions WHERE stage = 'words'").fetchall()}
        chunks = [chunk for chunk in chunks_of(connection) if chunk["chunk_id"] not in done]
    for chunk in chunks:
        members = list(_codes(paintings, chunk))
        payload = pruned(context, steps["extract"], chunk, chunk["digest"], members)
        payload = pruned(context, steps["project"], chunk, payload, members)
        payload = written(context, steps["quantize"], chunk, payload, members, layout)
        written(context, steps["words"], chunk, payload, list(_words(paintings, chunk)), of_words)


def _codes(paintings: Paintings, chunk: dict[str, Any]) -> Iterator[Row]:
    for image_id in range(chunk["first_image_id"], chunk["first_image_id"] + chunk["n_images"]):
        copy, of = divmod(image_id, len(paintings.rows))
        row = paintings.rows[of]
        assert row.descriptors is not None
        moved = np.roll(row.descriptors, 1 + 7 * copy % 63, axis=1) if copy else row.descriptors
        yield replace(row, image_id=image_id, filename=f"{image_id:06d}.jpg", descriptors=moved)


def _words(paintings: Paintings, chunk: dict[str, Any]) -> Iterator[Row]:
    for image_id in range(chunk["first_image_id"], chunk["first_image_id"] + chunk["n_images"]):
        copy, of = divmod(image_id, len(paintings.rows))
        words = paintings.words[of]
        bits = paintings.bits[of * FULL : (of + 1) * FULL] if not copy else _other_bits(paintings, words, image_id)
        extra = {"word": words.tolist()}
        yield Row(image_id, f"{image_id:06d}.jpg", Status.OK, None, bits, extra=extra)


def _other_bits(paintings: Paintings, words: NDArray[np.uint32], image_id: int) -> NDArray[np.uint8]:
    """Return signatures of descriptors of the same words, an eighth of the bits of each flipped."""
    rng = np.random.default_rng(image_id)
    first, end = paintings.starts[words], paintings.starts[words.astype(np.int64) + 1]
    chosen = paintings.order[first + (rng.random(len(words)) * (end - first)).astype(np.int64)]
    flips = rng.integers(0, 256, (3, len(words), 8), np.uint8)
    found: NDArray[np.uint8] = paintings.bits[chosen] ^ (flips[0] & flips[1] & flips[2])
    return found
