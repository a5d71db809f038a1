"""DuckDB's errors in one line, with advice where there is some."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import duckdb

from featurestore.catalog import Context, column_types
from featurestore.errors import UnreadableFile
from featurestore.query.views import every_view
from featurestore.quoting import folded, identifier
from featurestore.stages import Stage
from featurestore.system import advice_for, lacking
from featurestore.wording import first_line

BEGINNINGS = "SELECT, FROM, WITH, VALUES, PIVOT, UNPIVOT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN"  # of queries
UNKNOWN_COLUMN = re.compile(
    r'Referenced column "(.+?)" not found|not have a column named "(.+?)"|Column "(.+?)" does not exist on'
)
OTHER_FILE = re.compile(r'Cannot access (?:file "(.+)"|directory ".+") - file system operations are disabled')
# Lines of the traceback that DuckDB makes its message where a file system in Python failed.
UNREADABLE = re.compile(r"^(?:\w+\.)*UnreadableFile: (.+)$", re.MULTILINE)
ABSENT = re.compile(r"^FileNotFoundError: \[Errno \d+\] (.+)$", re.MULTILINE)


def explain(error: Exception, flow: Sequence[Stage]) -> str:
    """Return DuckDB's error in one line, with advice where there is some.

    Raises:
        UnreadableFile: the error is that of an object store.
    """
    if failed := UNREADABLE.search(str(error)):
        raise UnreadableFile(failed[1]) from None
    if other := OTHER_FILE.search(str(error)):
        what = f"{other[1]!r} is another file" if other[1] else "this needs an extension of DuckDB"
        return (
            f"a query reads nothing but the store's views, and {what}; SHOW TABLES lists them, and images has "
            "the columns of the dataset. To join a file, write an answer with --output and read both in DuckDB itself"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    about = first_line(error)
    if unknown := re.match(r"Catalog Error: Table with name (.+) does not exist", about):
        views = every_view(flow)
        near = difflib.get_close_matches(unknown[1].lower(), views, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"there is no view {unknown[1]}; {hint}the views are {', '.join(views)}"
    absent = ABSENT.search(str(error))
    about = absent[1] if absent else about
    if absent or about.startswith("IO Error") or "No magic bytes" in about:
        about += ". If a run has just recomputed the chunk, or a prune deleted it, ask again; else the file is damaged"
    about = about.replace("Python exception occurred while executing the UDF: ValueError: ", "")
    about = re.sub(r", or SET error_on_division_by_zero=.*", "", about)
    hint = next((line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))), "")
    if reason := lacking(error):
        hint = f"{advice_for(reason)}, then ask again"
    return f"{about}{'. ' + hint[0].upper() + hint[1:] if hint else ''}"


def beginning_hint(query: str, error: Exception) -> str:
    """Return advice for a query that begins with no word of SQL, to follow DuckDB's error; else nothing."""
    found = re.match('Parser Error: syntax error at or near "(.+)"', first_line(error))
    if found is None or not query.lstrip().startswith(found[1]) or found[1].upper() in re.findall(r"\w+", BEGINNINGS):
        return ""
    return f"; a query begins with {BEGINNINGS}, and SHOW TABLES lists the views"


def column_hint(context: Context, connection: duckdb.DuckDBPyConnection, query: str, error: Exception) -> str:
    """Return advice for a query with a column that does not exist, to follow DuckDB's error; else nothing.

    Args:
        context: of the store.
        connection: with the views that the query names.
        query: that was refused.
        error: of DuckDB.
    """
    found = UNKNOWN_COLUMN.search(first_line(error))
    words = set(re.findall(r"\w+", query.lower()))
    views = [view for view in every_view(context.flow) if view in words]
    if found is None or not views:
        return ""
    name = next(filter(None, found.groups()))
    if "images" not in words:
        with context.catalog.reading() as catalog:
            known = folded(name) in column_types(catalog)
        if known:
            return f". {name} is a column of images: FROM images JOIN {views[0]} USING (image_id)"
    return "".join(f". {view} has {', '.join(_columns(connection, view))}" for view in views)


def _columns(connection: duckdb.DuckDBPyConnection, view: str) -> list[str]:
    return connection.sql(f"FROM {identifier(view)}").columns
