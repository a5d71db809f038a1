"""Names and values in DuckDB's SQL."""

from __future__ import annotations


def folded(name: str) -> str:
    """Return the name of a column as DuckDB compares it: only the letters of ASCII are the same in any case."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def literal(text: str) -> str:
    """Return a text as a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return the name of a table or column as SQL."""
    return '"' + name.replace('"', '""') + '"'
