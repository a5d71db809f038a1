"""Other programs' words in our messages: one line of them, that can be printed."""

from __future__ import annotations

import unicodedata

LONGEST = 1000  # characters of a line


def is_hidden(letter: str) -> bool:
    """Tell whether nothing is drawn for a character: zero-width spaces, marks of order and of direction."""
    return unicodedata.category(letter) == "Cf"


def one_line(text: str, limit: int = LONGEST) -> str:
    """Return a text in one line that can be printed and is not too long."""
    seen = (c.encode("ascii", "backslashreplace").decode() if is_hidden(c) else c for c in " ".join(text.split()))
    line = "".join(seen).encode(errors="backslashreplace").decode()
    return line if len(line) <= limit else f"{line[:limit]}..."


def first_line(error: BaseException | str | None, limit: int = LONGEST) -> str:
    """Return the first line of an error's message, without the punctuation that ends it.

    What follows in DuckDB's messages are candidates, a drawing with a caret, advice on settings: after a colon, too.
    """
    lines = str(error or "").strip().splitlines()
    if lines:
        return one_line(lines[0], limit).rstrip(" .!:;,")
    return "unknown error" if error is None or isinstance(error, str) else type(error).__name__
