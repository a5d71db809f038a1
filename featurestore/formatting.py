"""Formatting for messages and tables: counts, bytes, durations, ranges of chunks, cells."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def counted(n: int, noun: str) -> str:
    """Return a number and its noun: ``1 chunk``, ``2 chunks``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def human_bytes(n: float) -> str:
    """Return bytes as people read them, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5:
            return f"{n:.0f} {unit}" if unit == "B" or n >= 99.5 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def chunk_list(chunks: Collection[int]) -> str:
    """Return chunk numbers as people write them: ``chunks 0-3, 7``."""
    spans: list[list[int]] = []
    for chunk in sorted(chunks):
        if spans and chunk == spans[-1][1] + 1:
            spans[-1][1] = chunk
        else:
            spans.append([chunk, chunk])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in spans[:5]]
    return f"chunk{'s' if len(chunks) > 1 else ''} {', '.join(parts)}{', ...' if len(spans) > 5 else ''}"


def cell_text(value: Any) -> str:
    """Return a value as the text of a cell, on one line and without control characters."""
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, float):
        return str(value)
    if isinstance(value, list):
        more = [f"... {len(value):,} in all"] if len(value) > 6 else []
        return f"[{', '.join([*map(cell_text, value[:6]), *more])}]"
    if isinstance(value, tuple):  # of a map
        return "=".join(map(cell_text, value))
    if isinstance(value, dict):
        return f"{{{', '.join(f'{cell_text(name)}: {cell_text(item)}' for name, item in value.items())}}}"
    if value is None:
        return "NULL"
    # a line feed or an escape sequence in a CSV must not redraw the terminal
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
