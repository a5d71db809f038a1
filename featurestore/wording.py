"""Messages of other programs inside of ours: one printable line."""

from __future__ import annotations

import unicodedata

LONGEST = 1000  # characters of a line


def is_hidden(letter: str) -> bool:
    """Return whether a character is invisible: zero-width spaces, byte order and direction marks."""
    return unicodedata.category(letter) == "Cf"


def one_line(text: str, limit: int = LONGEST) -> str:
    """Return a text as one printable line of limited length."""
    seen = (c.encode("ascii", "backslashreplace").decode() if is_hidden(c) else c for c in " ".join(text.split()))
    line = "".join(seen).encode(errors="backslashreplace").decode()
    return line if len(line) <= limit else f"{line[:limit]}..."


def first_line(error: BaseException | str | None, limit: int = LONGEST) -> str:
    """Return the first line of an error's message, without punctuation at its end.

    The other lines of DuckDB's messages are candidates, a caret under the query and advice on settings.
    """
    lines = str(error or "").strip().splitlines()
    if lines:
        return one_line(lines[0], limit).rstrip(" .!:;,")
    return "unknown error" if error is None or isinstance(error, str) else type(error).__name__
