"""Tables and notes in the width of the screen, and colours where it has some."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import click

NARROWEST = 12  # characters to which a column of text is cut
WIDE = 16  # characters of a number; one with more goes before the last columns do
FILENAME = "filename"  # the column by which people know a row: it stays, and keeps the ends of its paths
ID = 8  # characters of an identity of 16, which are enough to name it
GAP = 2  # between columns
ROOM = 2  # by which a column is wider than its name, where there is room


@dataclass(frozen=True)
class Screen:
    """The place where a report is shown."""

    width: int | None = None  # columns; None: as wide as the report is
    colours: bool = False

    def painted(self, text: str, colour: str) -> str:
        """Return a text in a colour, where there are colours."""
        return click.style(text, fg=colour) if self.colours and text else text

    def wrapped(self, lines: Iterable[str], indent: str = "  ") -> list[str]:
        """Return the lines of notes, wrapped between words."""
        if self.width is None:
            return list(lines)
        wrap = textwrap.TextWrapper(
            self.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
        )
        return [part for line in lines for part in (wrap.wrap(line) or [""])]


PLAIN = Screen()  # a file or a pipe: nothing is cut, and nothing coloured


def find_screen() -> Screen:
    """Return what stdout is shown on. Colours need a terminal, and no ``NO_COLOR``."""
    if not sys.stdout.isatty():
        return PLAIN
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Screen(shutil.get_terminal_size().columns, colours)


@dataclass(frozen=True)
class Table:
    """The columns of a table, as text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[bool]  # columns that are aligned to the right, and never cut
    ids: Collection[str] = ()  # columns of identities, of which the first digits suffice
    optional: Sequence[str] = ()  # columns to drop if there is no room, the first one first
    room: int = ROOM

    def fitted(self, width: int | None) -> tuple[Table, int]:
        """Return the table in a width, and how many of its columns had to be dropped."""
        found = self
        if width is None or found._width() <= width:
            return found, 0
        found = replace(found, room=0)
        if found._width() > width:
            found = found._with_short_ids()
        for name in self.optional:
            if found._width() > width and name in found.header:
                found = found._without(list(found.header).index(name))
        n_dropped = 0
        while found._width() > width and len(found.header) > 1:
            cut = found._cut(width)
            if cut._width() <= width:
                return cut, n_dropped
            found, n_dropped = found._without(found._least()), n_dropped + 1
        return found._cut(width) if n_dropped else found, n_dropped

    def text(self) -> str:
        """Return the table as text: the names, a rule, and the rows."""
        widths = self._widths()
        lines = [self.header, ["-" * width for width in widths], *self.rows]
        return "\n".join(self._line(line, widths) for line in lines)

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = []
        for cell, width, number in zip(cells, widths, self.numbers, strict=True):
            space = " " * (width - len(click.unstyle(cell)))
            padded.append(space + cell if number else cell + space)
        return (" " * GAP).join(padded).rstrip()

    def _widths(self) -> list[int]:
        names = [len(name) + self.room for name in self.header]
        columns = zip(*self.rows, strict=True) if self.rows else ([""] for _ in names)
        return [max(name, *(len(click.unstyle(cell)) for cell in c)) for name, c in zip(names, columns, strict=True)]

    def _width(self) -> int:
        return sum(self._widths()) + GAP * (len(self.header) - 1)

    def _with_short_ids(self) -> Table:
        rows = [[c[:ID] if n in self.ids else c for n, c in zip(self.header, row, strict=True)] for row in self.rows]
        return replace(self, rows=rows)

    def _least(self) -> int:
        """Return the column to drop: the widest of long numbers, else the last; the first only before `FILENAME`."""
        widths = self._widths()
        others = [i for i, name in enumerate(self.header) if i and name.lower() != FILENAME] or [0]
        numbers = [i for i in others if self.numbers[i] and widths[i] > WIDE]
        return max(numbers, key=lambda i: widths[i]) if numbers else others[-1]

    def _cut(self, width: int) -> Table:
        """Return the table with its widest texts cut, but not below `NARROWEST`."""
        limits = self._widths()
        texts = [i for i, number in enumerate(self.numbers) if not number]
        while sum(limits) + GAP * (len(limits) - 1) > width:
            widest = max(texts, key=lambda i: limits[i], default=None)
            if widest is None or limits[widest] <= NARROWEST:
                break
            limits[widest] -= 1
        header = [_cut(name, limit) for name, limit in zip(self.header, limits, strict=True)]
        cuts = [_cut_start if name.lower() == FILENAME else _cut for name in self.header]
        rows = [[cut(cell, n) for cut, cell, n in zip(cuts, row, limits, strict=True)] for row in self.rows]
        return replace(self, header=header, rows=rows)

    def _without(self, column: int) -> Table:
        def others(row: Sequence[str]) -> list[str]:
            return [cell for i, cell in enumerate(row) if i != column]

        numbers = [number for i, number in enumerate(self.numbers) if i != column]
        return replace(self, header=others(self.header), rows=list(map(others, self.rows)), numbers=numbers)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _cut_start(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"…{text[1 - limit :]}"
