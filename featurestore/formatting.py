"""Formatting for messages: counts, bytes, durations and ranges of chunks."""

from __future__ import annotations

from collections.abc import Collection


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
