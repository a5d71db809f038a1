"""Features to match: of an image of the store, or of any other, encoded as a run would have encoded it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import FeatureStoreError, NothingUsable, NotReady, QueryError
from featurestore.matching import Features
from featurestore.query.encode import codes_and_keypoints
from featurestore.query.lookup import Image, Lookup
from featurestore.rows import KEYPOINT, KEYPOINT_COLUMNS
from featurestore.stages import Extract
from featurestore.system import command_line, is_file, why_no_file

MATCHED = ("x", "y", "size", "angle")  # columns of keypoints that a match is checked by
Given = str | os.PathLike[str] | NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Named:
    """Features, and what to call them in a message."""

    name: str
    features: Features
    filename: str | None = None  # in the store


def features_of(lookup: Lookup, given: Given) -> Named:
    """Return the features of an image in the space of the codes.

    Args:
        lookup: of the store.
        given: the name of an image in the store, the path of a file, pixels ``(height, width, 3)`` uint8 in BGR order,
            or codes ``(n, dim)`` and keypoints ``(n,)`` as `FeatureStore.encode` returns them. A text that is a name in
            the store and a path is the name.

    Raises:
        QueryError: there is no such image in the store, and no such file; or the arrays can't be used.
        NotReady: a model has not been fitted yet, or the image of the store has no codes with keypoints.
        NothingUsable: the file can't be used, or has no keypoints.
    """
    if isinstance(given, str) and lookup.position(given) >= 0:
        found = Named(given, stored_features(lookup, given), given)
    elif isinstance(given, tuple):
        found = Named("the query", _given_features(lookup, *_two(given)))
    else:
        found = _encoded(lookup, given)
    if not len(found.features):
        raise NothingUsable(f"{found.name} has no keypoints, so there is nothing to match; take another picture")
    return found


def stored_features(lookup: Lookup, filename: str) -> Features:
    """Return the features of an image of the store; its size is unknown if extract's partition is pruned.

    Args:
        lookup: of the store.
        filename: of the image.

    Raises:
        QueryError: there is no such image.
        NotReady: it has no codes with keypoints.
        NothingUsable: the image file could not be used.
    """
    image = Image(*lookup.find(filename), filename)
    return replace(features_to_match(lookup, image, KEYPOINT_COLUMNS), size=_stored_size(lookup, filename))


def features_to_match(lookup: Lookup, image: Image, columns: Sequence[str] = MATCHED) -> Features:
    """Return the features of an image of the store without its size, which only the outline of a query depends on.

    Args:
        lookup: of the store.
        image: of the dataset.
        columns: of the keypoints; the others may be 0.

    Raises:
        NotReady: it has no codes with keypoints.
        NothingUsable: the image file could not be used.
    """
    wanted = ["descriptors", *columns]
    row, layout = lookup.row_of(image, stage=None, variant=None, columns=wanted, where_kept=True)
    if not layout.keypoints:
        raise NotReady(
            f"the codes of {image.filename!r} have no keypoints, and a match is checked by where they are; set "
            f"keypoints = true in featurestore.toml and run: {command_line('run', lookup.context.root.path)}"
        )
    codes, keypoints = codes_and_keypoints(row, layout)
    if len(keypoints) != len(codes):
        raise imported_without(image.filename, "a match is checked by where they are")
    return Features(lookup.decoder(None).floats(codes), keypoints)


def imported_without(filename: str, why: str) -> NotReady:
    """Return the error for an image whose descriptors were imported without keypoints; ``why`` these are needed."""
    return NotReady(
        f"the descriptors of {filename!r} have no keypoints, since they were imported, and {why}; make a new "
        "store, and extract its images"
    )


def _stored_size(lookup: Lookup, filename: str) -> tuple[int, int] | None:
    try:
        row, _ = lookup.row(filename, stage=Extract.name, variant=None, columns=["width", "height"])
    except FeatureStoreError:  # pruned, imported without a size, or replaced: the outline is that of the keypoints
        return None
    width, height = row.extra.get("width"), row.extra.get("height")
    return (width, height) if width and height else None


def _encoded(lookup: Lookup, given: Any) -> Named:
    name = "the query" if isinstance(given, np.ndarray) else os.fspath(given) if isinstance(given, os.PathLike) else ""
    if isinstance(given, str):
        name = given
        if not is_file(Path(given)):
            raise _neither(lookup, given)
    row, size = lookup.encoder.encode_with_size(given)
    codes, keypoints = codes_and_keypoints(row, lookup.encoder.layout)
    return Named(name, Features(lookup.decoder(None).floats(codes), keypoints, size))


def _neither(lookup: Lookup, name: str) -> QueryError:
    try:
        lookup.find(name)
    except QueryError as error:
        return QueryError(f"{why_no_file(name)}, and {error}")
    raise AssertionError(f"{name} was looked for and found")


def _two(given: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(given) != 2:
        raise QueryError(f"a query of arrays is (codes, keypoints), and this has {len(given)} parts")
    return given[0], given[1]


def _given_features(lookup: Lookup, codes: Any, keypoints: Any) -> Features:
    keypoints = np.asarray(keypoints)
    if keypoints.dtype != KEYPOINT or keypoints.shape != np.shape(codes)[:1]:
        raise QueryError(
            f"a query of arrays has keypoints as encode(keypoints=True) returns them, one for each of its codes, and "
            f"these are {keypoints.shape} {keypoints.dtype} for codes {np.shape(codes)}"
        )
    if (keypoints["size"] < 0).any() or not all(np.isfinite(keypoints[name]).all() for name in MATCHED):
        raise QueryError(
            "a keypoint of the query is NaN, infinite or of a size below 0; give those that encode returns"
        )
    return Features(lookup.decoder(None).floats(codes), keypoints)
