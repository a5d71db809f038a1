"""Quoting of names and values in DuckDB's SQL."""

from __future__ import annotations


def folded(name: str) -> str:
    """Return a column name in the form in which DuckDB compares names: ASCII letters are case-insensitive."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def literal(text: str) -> str:
    """Return a text as a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return the name of a table or column as SQL."""
    return '"' + name.replace('"', '""') + '"'
