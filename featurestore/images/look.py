"""Looking for the images of a dataset in a source: how many there are, and a hint if names are absent."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from unicodedata import is_normalized, normalize

from featurestore.errors import DatasetError
from featurestore.images.locate import MOST_NAMES, TRIED, Whereabouts, folded, look_for
from featurestore.images.run_images import image_at, state_of_image
from featurestore.images.sources.base import Missing, Source
from featurestore.images.sources.container import Container
from featurestore.images.sources.object_store import Objects

SHOWN = 3  # names that a hint gives as examples
ASKED = 100  # names that are looked for in an object store, where each is a request
COMPARED = 10_000  # names of the container in which those of the dataset are looked for


def look_for_images(source: Source, filenames: Sequence[str]) -> Whereabouts:
    """Look for the first thousand of the images ``filenames`` in a source.

    Raises:
        DatasetError: the source can't be used.
    """
    if not isinstance(source, (Container, Objects)):
        return look_for(Path(source.where), filenames)
    looked = filenames[: ASKED if isinstance(source, Objects) else MOST_NAMES]
    absent = [name for name in looked if state_of_image(image_at(source.where, name)) is None]
    return Whereabouts(len(looked), len(absent), repr(absent[0]) if absent else "", _hint(source, absent[:TRIED]))


def _hint(source: Container | Objects, absent: Sequence[str]) -> str:
    try:
        held = [entry.name for entry in islice(source.entries(), COMPARED)] if absent else []
    except DatasetError:  # the names of half a tar are unknown; those of its whole images can be read
        try:
            source.stat(absent[0])
        except Missing as error:
            return str(error)
        raise
    for there in held:
        for name in absent:
            if there.endswith(f"/{name}"):
                above = there[: -len(name) - 1]
                if isinstance(source, Objects):
                    return f"they are in {above!r} there: give --images '{source.where}/{above}'"
                if source.takes_prefix:
                    return f"they are in {above!r} there: give --images '{source.where}!{above}'"
                return f"{name!r} is {there!r} there: write the names as they are there"
            if name.endswith(f"/{there}"):
                return f"without {name[: -len(there)]!r} before them the names exist: remove it from the dataset"
    alike = {_skeleton(there): there for there in reversed(held)}
    for name in absent:
        if (like := alike.get(_skeleton(name))) is not None:
            return _difference(name, like)
    what = "prefix" if isinstance(source, Objects) else "file"
    examples = ", ".join(map(repr, held[:SHOWN])) or "no image"
    return f"the names are those in {source.where}, which holds {examples}: is it the right {what}?"


def _skeleton(name: str) -> str:
    """Return what is left of a name without what differs between systems: slashes, Unicode form, case, extension."""
    return posixpath.splitext(folded(name.replace("\\", "/")))[0]


def _difference(name: str, there: str) -> str:
    """Return the hint for an absent name that is much like one that is there."""
    if folded(name) != folded(there):
        return f"{name!r} is {there!r} there: write the names as they are there"
    if normalize("NFC", name) != normalize("NFC", there):
        return f"they are there with other upper and lower case, as {there!r}: correct the dataset"
    form = "NFC" if is_normalized("NFC", there) else "NFD"
    return f"they are there in another Unicode form: convert the dataset to {form}"
