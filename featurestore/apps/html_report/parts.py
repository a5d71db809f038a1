"""The parts of a report, as the template shows them: sections of tables, charts, galleries and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["text", "image", "name", "number", "bytes", "seconds", "share", "code", "time", "muted"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        label: its heading.
        kind: how its values are shown. A ``name`` is not broken into lines; of a ``share``, 1 is all; an ``image`` is
            the name of one, which a page may link to; ``muted`` is text of less weight.
        bar: draw a bar beside each value, as long as the value is large.
    """

    label: str
    kind: Kind = "text"
    bar: bool = False


@dataclass(frozen=True)
class Table:
    """A table, and what was asked for it.

    Args:
        caption: of the table.
        columns: as many as each row has values. The first names the row.
        rows: of values as Python has them; None is shown as nothing.
        query: the SQL that has the rows as its answer, or the Python; empty for what neither has.
        language: of ``query``.
        left_out: rows that there are and that are not shown.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    query: str = ""
    language: Literal["SQL", "Python"] = "SQL"
    left_out: int = 0
    part: str = "table"

    def largest(self, column: int) -> float:
        """Return the largest value of a column of numbers; 1 where there is none above 0."""
        return max((row[column] for row in self.rows if row[column] is not None), default=0) or 1


@dataclass(frozen=True)
class Chart:
    """A chart as SVG; ``table`` has its numbers."""

    svg: str
    table: Table
    part: str = "chart"


@dataclass(frozen=True)
class Note:
    """A line of text; a ``warning`` is one that asks for an action."""

    text: str
    warning: bool = False
    part: str = "note"


@dataclass(frozen=True)
class GalleryImage:
    """An image of a gallery.

    Args:
        filename: of the image.
        n_descriptors: of the image.
        picture: a small JPEG as a data URI; None if there is none.
        why: there is none.
        width: of the image in pixels.
        height: of the image in pixels.
        keypoints: SVG in pixels of the image.
        n_keypoints: in ``keypoints``.
    """

    filename: str
    n_descriptors: int
    picture: str | None = None
    why: str = ""
    width: int = 0
    height: int = 0
    keypoints: str = ""
    n_keypoints: int = 0


@dataclass(frozen=True)
class Gallery:
    """Images side by side, as the rows of ``table`` name them."""

    title: str
    images: Sequence[GalleryImage]
    table: Table
    part: str = "gallery"


@dataclass(frozen=True)
class Sheet:
    """Many small pictures, as pairs of a file name and a data URI; ``table`` names them."""

    pictures: Sequence[tuple[str, str]]
    table: Table
    part: str = "sheet"


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Args:
        name: of its address within the page.
        heading: of the section.
        parts: in order.
        lead: a sentence about them.
    """

    name: str
    heading: str
    parts: Sequence[Table | Chart | Note | Gallery | Sheet] = field(default_factory=tuple)
    lead: str = ""


@dataclass(frozen=True)
class Report:
    """A report: its title, the numbers at its top as pairs of label and text, and its sections."""

    title: str
    lead: str
    highlights: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    version: str
