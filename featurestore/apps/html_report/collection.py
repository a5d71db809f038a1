"""The sections about the dataset: its images, its subsets, and the columns of its CSV."""

from __future__ import annotations

from featurestore.apps.html_report.asking import MOST_TEXT, Ask, rows_of, short, table_of
from featurestore.apps.html_report.parts import Column, Note, Section, Table
from featurestore.quoting import identifier

OURS = ("image_id", "filename", "subset", "chunk_id")  # of the view images; the others are the CSV's
FEW = 20  # values of a column that is shown
MOST_COLUMNS = 100


def collection(ask: Ask) -> Section:
    """Return the section of what the collection is."""
    images = Column("images", "number", bar=True)
    parts: list[Table | Note] = [
        table_of(
            ask,
            "Images by subset",
            (Column("subset"), images),
            "SELECT subset, count(*) AS images FROM images GROUP BY subset ORDER BY subset",
        )
    ]
    distinct = count_values(ask)
    for name, n in distinct.items():
        if 0 < n <= FEW:
            column = identifier(name)
            query = (
                f"SELECT {short(f'CAST({column} AS VARCHAR)')} AS cell, count(*) AS images\n"
                f"FROM images GROUP BY {column} ORDER BY images DESC, cell"
            )
            parts.append(table_of(ask, f"Images by {name[:MOST_TEXT]}", (Column(name[:MOST_TEXT]), images), query))
    many = [f"{name[:MOST_TEXT]} ({n:,})" for name, n in distinct.items() if n > FEW]
    if many:
        parts.append(Note(f"Columns with more values: {', '.join(many)}."))
    return Section("collection", "The collection", parts)


def count_values(ask: Ask) -> dict[str, int]:
    """Return the number of values of each column of the CSV; of the first columns, if there are many."""
    names = [name for name, *_ in rows_of(ask, "DESCRIBE images") if name not in OURS][:MOST_COLUMNS]
    if not names:
        return {}
    counts = ", ".join(f"count(DISTINCT {identifier(name)})" for name in names)
    ((*found,),) = rows_of(ask, f"SELECT {counts} FROM images")
    return dict(zip(names, found, strict=True))
