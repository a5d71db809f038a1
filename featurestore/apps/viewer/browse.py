"""The page of the images: which of them are chosen, in which order, and the SQL that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from featurestore.apps.html_report.asking import MOST_TEXT, Ask, rows_of, short
from featurestore.apps.html_report.collection import FEW, count_values
from featurestore.apps.html_report.parts import Table
from featurestore.errors import QueryError
from featurestore.quoting import identifier, literal

PAGE = 50  # images
ORDERS = {
    "dataset": ("of the dataset", "i.image_id"),
    "most": ("most descriptors first", "c.extract DESC NULLS LAST, i.image_id"),
    "fewest": ("fewest descriptors first", "c.extract ASC NULLS LAST, i.image_id"),
}
PREFIX = "in."  # of a parameter that chooses by a column
ANY, EMPTY, VALUE = "", "-", "="  # of its values: all images, those without one, and before the value itself


@dataclass(frozen=True)
class Option:
    """A value of a column: its code in an address, its text, the number of its images, and whether it is chosen."""

    code: str
    text: str
    n: int
    chosen: bool


@dataclass(frozen=True)
class Facet:
    """A column with few values, by which images can be chosen."""

    name: str
    options: tuple[Option, ...]

    @property
    def parameter(self) -> str:
        """The name of its parameter in an address."""
        return PREFIX + self.name


@dataclass(frozen=True)
class Choice:
    """The choice of images that an address has.

    Args:
        where: SQL over the columns of the view ``images``.
        order: one of `ORDERS`.
        page: from 1.
        values: codes of values by column.
    """

    where: str = ""
    order: str = "dataset"
    page: int = 1
    values: tuple[tuple[str, str], ...] = ()

    def address(self, page: int) -> str:
        """Return the address of another page of the same images."""
        there = replace(self, page=page)
        pairs = [("where", there.where), ("order", there.order)]
        pairs += [(PREFIX + name, code) for name, code in there.values]
        return "/images?" + urlencode([*((name, text) for name, text in pairs if text), ("page", str(page))])


@dataclass(frozen=True)
class Found:
    """The images of a page."""

    filename: str
    subset: str
    n_descriptors: int | None
    status: str | None  # of a failure
    error: str | None


@dataclass(frozen=True)
class Chosen:
    """A page of the chosen images, the number of all that are chosen, and a table with the SQL of the page."""

    images: tuple[Found, ...]
    n: int
    table: Table

    @property
    def n_pages(self) -> int:
        """Pages of all chosen images, at least one."""
        return max(1, -(-self.n // PAGE))


def read_choice(parameters: Mapping[str, str]) -> Choice:
    """Return the choice of an address.

    Raises:
        QueryError: there is no such order or page.
    """
    order, page = parameters.get("order", "dataset"), parameters.get("page", "1")
    if order not in ORDERS:
        raise QueryError(f"there is no order {order[:MOST_TEXT]!r}; the orders are {', '.join(ORDERS)}")
    if not (page.isascii() and page.isdigit() and len(page) < 10 and int(page)):
        raise QueryError(f"page is a number from 1, and not {page[:MOST_TEXT]!r}")
    values = tuple(
        (name.removeprefix(PREFIX), code) for name, code in parameters.items() if name.startswith(PREFIX) and code
    )
    return Choice(parameters.get("where", "").strip(), order, int(page), values)


def find_facets(ask: Ask, choice: Choice) -> tuple[Facet, ...]:
    """Return the columns with few values, each with its values."""
    names = ["subset", *(name for name, n in count_values(ask).items() if 0 < n <= FEW)]
    query = " UNION ALL ".join(
        f"SELECT {n} AS facet, CAST({identifier(name)} AS VARCHAR) AS cell, count(*) AS n FROM images GROUP BY ALL"
        for n, name in enumerate(names)
    )
    chosen = dict(choice.values)
    options: dict[str, list[Option]] = {name: [] for name in names}
    for facet, cell, n in rows_of(ask, f"{query} ORDER BY facet, n DESC, cell"):
        name = names[facet]
        code = EMPTY if cell is None else VALUE + cell
        text = "(empty)" if cell is None else cell[:MOST_TEXT]
        options[name].append(Option(code, text, n, chosen.get(name) == code))
    return tuple(Facet(name, tuple(found)) for name, found in options.items())


def choose(ask: Ask, choice: Choice, facets: tuple[Facet, ...]) -> Chosen:
    """Return the images of a choice.

    Raises:
        QueryError: ``where`` can't be evaluated, or there is no such column.
    """
    if (
        choice.where
    ):  # alone, so that it can't close the parentheses that it gets, and its error is about what was typed
        rows_of(ask, f"SELECT count(*) FROM images WHERE {choice.where}")
    chosen = f"SELECT * FROM images{_condition(choice, facets)}"
    query = (
        f"SELECT i.filename, i.subset, c.extract AS descriptors, f.status, {short('f.error')} AS error,\n"
        "  count(*) OVER () AS n\n"
        f"FROM ({chosen}) i\n"
        "JOIN image_counts c ON c.image_id = i.image_id LEFT JOIN failures f ON f.image_id = i.image_id\n"
        f"ORDER BY {ORDERS[choice.order][1]} LIMIT {PAGE} OFFSET {(choice.page - 1) * PAGE}"
    )
    rows = rows_of(ask, query)
    if rows or choice.page == 1:
        n = rows[0][-1] if rows else 0
    else:
        ((n,),) = rows_of(ask, f"SELECT count(*) FROM ({chosen})")
    return Chosen(tuple(Found(*row[:-1]) for row in rows), n, Table("Images", (), (), query))


def _condition(choice: Choice, facets: tuple[Facet, ...]) -> str:
    """Return the SQL of a choice, to follow the name of the view."""
    names = {facet.name for facet in facets}
    parts = [f"(\n{choice.where}\n)"] if choice.where else []  # its last line may be a comment
    for name, code in choice.values:
        if name not in names or code[0] not in (EMPTY, VALUE):
            raise QueryError(f"images can't be chosen by {name[:MOST_TEXT]!r} here; write it as SQL")
        cell = "NULL" if code == EMPTY else literal(code.removeprefix(VALUE))
        parts.append(f"CAST({identifier(name)} AS VARCHAR) IS NOT DISTINCT FROM {cell}")
    return f" WHERE {' AND '.join(parts)}" if parts else ""
