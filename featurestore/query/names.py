"""Names of images and columns, and numbers, that a caller gives: checks, and the error with the most similar name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import duckdb
import pyarrow as pa

from featurestore.catalog import Context
from featurestore.errors import QueryError

UNSEEN = ("Cc", "Cf")  # Unicode categories of control and format characters


def checked_name(filename: Any) -> str:
    """Return the name of an image, and refuse what can't be one, such as a `Path`, which names a file.

    Raises:
        QueryError: it is no text.
    """
    if not isinstance(filename, str):
        raise QueryError(
            f"an image has a name of the dataset, a text like 'monet/lilies.jpg', and this is {filename!r}; give its "
            "name as str"
        )
    return filename


def check_count(name: str, meaning: str, value: Any) -> None:
    """Refuse what is no whole number of at least 1; ``name`` and ``meaning`` say of what.

    Raises:
        QueryError: it is none.
    """
    if not isinstance(value, Integral) or value < 1:
        raise QueryError(f"{name} is a number of {meaning}, at least 1, and not {value!r}")


def column_names(columns: Iterable[str]) -> list[str]:
    """Return the names of columns, each once.

    Raises:
        QueryError: it is one text, or not all of them are texts.
    """
    names = [] if isinstance(columns, str) else list(dict.fromkeys(columns))
    if isinstance(columns, str) or not all(isinstance(name, str) for name in names):
        raise QueryError(f"columns is a list of names, like ['filename', 'n_descriptors'], and not {columns!r}")
    return names


def no_such_image(context: Context, images: pa.Table, filename: str) -> QueryError:
    """Return the error for a name that is none of ``images``, which are from `catalog.image_table`."""
    near = nearest(images, filename.encode(errors="replace").decode())  # half a surrogate pair is no text to DuckDB
    return QueryError(f"there is no image {filename!r} in {context.root.path}; {_hint(filename, near)}")


def _hint(filename: str, near: str | None) -> str:
    if near is None:
        return "names are those of the dataset CSV, below the image folder"
    if looks_like(filename, near):
        return f"there is one that looks the same and is written otherwise: {near!a}, and not {filename!a}"
    return f"did you mean {near!r}?"


def looks_like(one: str, other: str) -> bool:
    """Return whether two names look the same on a screen, as far as Unicode tells."""
    return _seen(one) == _seen(other)


def _seen(name: str) -> str:
    shown = (letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) not in UNSEEN)
    return " ".join("".join(shown).split())


def nearest(images: pa.Table, filename: str) -> str | None:
    """Return the name in the dataset most similar to ``filename``: in another form, in a folder, or misspelt."""
    with duckdb.connect() as connection:
        connection.register("known", images)
        found = connection.sql(
            """SELECT filename FROM (FROM known WHERE removed_by IS NULL)
               WHERE ends_with(filename, '/' || $name) OR jaro_winkler_similarity(filename, $name) > 0.85
                  OR nfc_normalize(filename) = nfc_normalize($name)
               ORDER BY nfc_normalize(filename) = nfc_normalize($name) DESC, ends_with(filename, '/' || $name) DESC,
                        jaro_winkler_similarity(filename, $name) DESC, filename
               LIMIT 1""",
            params={"name": filename},
        ).fetchall()
    return str(found[0][0]) if found else None
