"""Whether two stores can be merged: they need the same recipe, and the same images in the same chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.catalog import Context, ImageDifference, chunk_sizes, compare_images, list_images
from featurestore.errors import Incompatible
from featurestore.formatting import counted

SHOWN = 5  # differences to list


def compare_recipes(context: Context, other: Context) -> None:
    """Check that both stores have the same recipe for the stages that both have, such as those without an index.

    Raises:
        Incompatible: they differ in a parameter that changes results.
    """
    found, others = [], {stage.name: stage for stage in other.flow}
    for ours in context.flow:
        if ours.name in others:
            found += _differences(ours.name, _flat(ours.parameters()), _flat(others[ours.name].parameters()))
    if found:
        raise Incompatible(
            f"{other.root.path} has another recipe: {_shown(found[:SHOWN], len(found))}. Make featurestore.toml the "
            "same in both, and run there what has changed"
        )


def _differences(stage: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    both = [name for name in here if name in there]
    found = [f"{stage}.{n} is {here[n]!r} here and {there[n]!r} there" for n in both if here[n] != there[n]]
    if not found and here.keys() != there.keys():  # two versions of a plug-in; two extractors have their names
        found.append(f"only one has {', '.join(f'{stage}.{n}' for n in sorted(here.keys() ^ there.keys()))}")
    return found


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def compare_datasets(context: Context, other: Context) -> list[str]:
    """Check that every image of the other store is the same image here; return notes on removed images.

    An image may have left only one of the datasets: its partitions are the same, and this store's dataset is kept.

    Raises:
        Incompatible: an image is another one, or in another subset or chunk.
    """
    with other.catalog.reading() as connection:
        theirs = list_images(connection)
    with context.catalog.reading() as connection:
        found = compare_images(connection, theirs, most=SHOWN)
    if found.n_there > found.n_here:
        raise Incompatible(
            f"{other.root.path} has {counted(found.n_there, 'image')} and this store {found.n_here:,}; ingest the same "
            "dataset here first, then merge again"
        )
    if found.differences and not found.differences[0].n_others:
        raise Incompatible(_other_chunks(context, other))
    if found.differences:
        listed = _shown([_told(image) for image in found.differences], found.differences[0].n)
        raise Incompatible(
            f"{other.root.path} has another dataset: {listed}. Only stores of the same dataset CSV, split and chunk "
            "size can be merged"
        )
    removals = {("here", "there"): found.removals.n_here, ("there", "here"): found.removals.n_there}
    return [
        f"{counted(n, 'image')} removed {place} and in the dataset {elsewhere}; this store's dataset is kept"
        for (place, elsewhere), n in removals.items()
        if n
    ]


def _told(image: ImageDifference) -> str:
    here = f"{image.filename} ({image.subset}, chunk {image.chunk_id})"
    there = f"{image.their_filename} ({image.their_subset}, chunk {image.their_chunk_id})"
    return f"image {image.image_id} is {here} here and {there} there"


def _other_chunks(context: Context, other: Context) -> str:
    """Return the error for a store with the same images in other chunks."""
    sizes = []
    for store in (context, other):
        with store.catalog.reading() as connection:
            sizes.append(chunk_sizes(connection))
    chunk, (here, there) = next((i, pair) for i, pair in enumerate(zip(*sizes, strict=False)) if pair[0] != pair[1])
    mine, theirs = context.settings.chunk_size, other.settings.chunk_size
    why = f"chunk_size is {mine:,} here and {theirs:,} there"
    if mine == theirs:
        why = "the datasets grew by other ingests"
    return (
        f"{other.root.path} has the same images in other chunks: {why}; chunk {chunk} has {counted(here, 'image')} "
        f"here and {there:,} there. Only stores that made their chunks alike can be merged: make one of them again"
    )


def _shown(differences: Sequence[str], n: int) -> str:
    more = n - len(differences)
    return "; ".join(differences) + (f"; and {more:,} more" if more > 0 else "")
