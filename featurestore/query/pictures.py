"""Pictures of the store's images: with their keypoints, or two with their matches."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.drawing import ALL, KEPT, Layer, Picture, draw_keypoints, draw_pair
from featurestore.errors import FeatureStoreError, NothingUsable, NotReady, QueryError
from featurestore.formatting import counted
from featurestore.images import ImagePath, ReadFailed, read_image
from featurestore.matching import PairMatch, Verdict
from featurestore.query.features import Given, imported_without
from featurestore.query.lookup import Lookup
from featurestore.rows import KEYPOINT, KEYPOINT_COLUMNS, Status
from featurestore.stages import Extract, codes_of
from featurestore.system import command_line, is_file, why_no_file


def picture_of(lookup: Lookup, filename: str, *, stage: str | None, longest: int) -> Picture:
    """Return an image of the store with the keypoints of a stage.

    Those of a later stage than extract are drawn over all that extract found, where these are still stored.

    Args:
        lookup: of the store.
        filename: of the image.
        stage: a chunk stage; None is the one that makes the codes.
        longest: see `draw_keypoints`.

    Raises:
        QueryError: there is no such image or stage.
        NotReady: the stage has not been computed for it, or keeps no keypoints.
        NothingUsable: the image's file can't be used, or is another one than was extracted.
    """
    stage = stage or codes_of(lookup.context.flow).name
    keypoints = _keypoints(lookup, filename, stage)
    found = [Layer(keypoints, ALL if stage == Extract.name else KEPT)]
    text = f"{counted(len(keypoints), 'keypoint')} of {stage}"
    if stage != Extract.name:
        try:
            every = _keypoints(lookup, filename, Extract.name)
        except FeatureStoreError:  # pruned: the others are not known any more
            pass
        else:
            found.insert(0, Layer(every, ALL))
            text = f"{len(keypoints):,} of {counted(len(every), 'keypoint')} are in {stage}"
    pixels = _pixels(lookup, lookup.context.image(filename), filename, checked=True)
    return draw_keypoints(pixels, found, title=f"{filename}: {text}", longest=longest)


def picture_of_match(lookup: Lookup, query: Given, image: Given, match: PairMatch, *, longest: int) -> Picture:
    """Return two images side by side with the matches that agree.

    Args:
        lookup: of the store.
        query: as in `features_of`, but for codes, which have no pixels.
        image: as ``query``.
        match: of the two.
        longest: see `draw_pair`.

    Raises:
        QueryError: one has no pixels, or there is no such image and no such file.
        NothingUsable: a file can't be used, or is another one than was extracted.
    """
    one, other = _pixels_of(lookup, query), _pixels_of(lookup, image)
    agree = f"{match.inliers:,} of {match.n_matches:,} matches agree"
    shown = match.status is not Verdict.CANDIDATE and match.outline is not None
    where = f"; scale {match.scale:.3f}, turned by {match.degrees:z.1f} degrees" if shown else ""
    return draw_pair(
        one,
        other,
        query_points=match.query_points,
        image_points=match.image_points,
        distances=match.distances,
        outline=match.outline if shown else None,
        title=f"{match.status}: {agree}{where}",
        longest=longest,
    )


def pixels_of(lookup: Lookup, filename: str) -> NDArray[np.uint8]:
    """Return the pixels of an image of the store, ``(height, width, 3)``, BGR: those that were extracted.

    Raises:
        QueryError: there is no such image.
        NothingUsable: its file can't be used, or is another one than was extracted.
    """
    lookup.find(filename)
    return _pixels(lookup, lookup.context.image(filename), filename, checked=True)


def _keypoints(lookup: Lookup, filename: str, stage: str) -> NDArray[np.void]:
    row, _ = lookup.row(filename, stage=stage, variant=None, columns=KEYPOINT_COLUMNS)
    if row.keypoints is None and row.status == Status.OK:
        raise imported_without(filename, "there is nothing to draw")
    return np.empty(0, KEYPOINT) if row.keypoints is None else row.keypoints


def _pixels_of(lookup: Lookup, given: Given) -> NDArray[np.uint8]:
    if isinstance(given, np.ndarray):
        return given
    if isinstance(given, tuple):
        raise QueryError("codes have no pixels, so they can't be drawn; name an image or a file instead")
    if isinstance(given, str) and lookup.position(given) >= 0:
        return _pixels(lookup, lookup.context.image(given), given, checked=True)
    name = os.fspath(given)
    if not is_file(Path(name)):
        raise QueryError(f"{why_no_file(name)}, and there is no image of that name in the store")
    return _pixels(lookup, str(Path(name)), name, checked=False)


def _pixels(lookup: Lookup, path: ImagePath, name: str, *, checked: bool) -> NDArray[np.uint8]:
    """Return the pixels of a file; if it is ``checked``, those of which the store has the keypoints."""
    (extract,) = (stage for stage in lookup.context.flow if isinstance(stage, Extract))
    try:
        found = read_image(path, max_pixels=extract.max_pixels, truncated="keep")
    except ReadFailed as error:
        raise NothingUsable(f"{name} can't be drawn: it can't be read ({error})") from error
    if found.pixels is None:
        raise NothingUsable(f"{name} can't be drawn: {found.message} ({found.status})")
    if checked and found.source_hash != _hash(lookup, name, found.source_hash):
        raise NothingUsable(
            f"{name} is another file than the one that was extracted, and its keypoints would lie elsewhere; extract "
            f"it again with: {command_line('run', lookup.context.root.path, '--check-images')}"
        )
    return found.pixels


def _hash(lookup: Lookup, filename: str, otherwise: str | None) -> str | None:
    """Return the SHA-256 of the file that was extracted; ``otherwise`` where the store does not know it."""
    try:
        row, _ = lookup.row(filename, stage=Extract.name, variant=None, columns=["source_hash"])
    except NotReady:  # pruned
        return otherwise
    known: str | None = row.extra.get("source_hash")
    return known or otherwise
