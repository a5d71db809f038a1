"""SQL over the store: queries on a copy of the catalog, so that they can't delay a run or change the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.catalog import Context
from featurestore.errors import MissingDependency, QueryError
from featurestore.formatting import counted, human_bytes
from featurestore.query.exact import NUMBERS, WIDE, answer_table, exact_columns, texts
from featurestore.query.explain import BEGINNINGS, beginning_hint, column_hint, explain
from featurestore.query.kept_copy import can_keep, kept_copy
from featurestore.query.views import SNAPSHOT_VIEWS, is_of_snapshot, make_views, set_up
from featurestore.stages import Stage
from featurestore.system import command_line, free_memory, optional_scratch_folder, ready_thread

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

ROWS = 100_000  # in a batch of an answer
EXACT_FLOATS = 2**53  # up to here a float holds every whole number
WIDE_ROWS = 256  # if a row may hold a whole image
QUESTIONS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI)  # MULTI: PIVOT
LIST_VIEWS = re.compile(r"\s*(show\s+(all\s+)?(tables|views)|describe)\s*;?\s*", re.IGNORECASE)
VIEW_LIST = """
    SELECT table_name AS name, string_agg(column_name, ', ' ORDER BY column_index) AS columns
    FROM duckdb_columns() WHERE database_name = 'temp' AND NOT internal AND NOT starts_with(table_name, '_')
    GROUP BY ALL ORDER BY ALL"""


@dataclass(frozen=True)
class QueryResult:
    """The result of a query, as Arrow, pandas, polars or tuples.

    Args:
        table: the result.
        notes: what a reader has to know of the views that were asked, in one line each.
    """

    table: pa.Table
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.table.column_names)

    def arrow(self) -> pa.Table:
        """Return the answer as an Arrow table."""
        return self.table

    def df(self) -> pd.DataFrame:
        """Return the answer as a pandas data frame."""
        import pandas as pd

        frame: pd.DataFrame = self.table.to_pandas()
        for name in self.columns:
            if _loses_whole_numbers(self.table[name]):
                frame[name] = pd.Series(self.table[name].to_pylist(), dtype=object)
        return frame

    def pl(self) -> Any:
        """Return the answer as a polars data frame.

        Raises:
            MissingDependency: polars is not installed.
        """
        try:
            import polars
        except ImportError as error:
            raise MissingDependency("polars is not installed; pip install 'featurestore[polars]'") from error
        try:
            return polars.from_arrow(self.table)
        except Exception as error:
            if not type(error).__module__.startswith("polars"):
                raise
            raise QueryError(f"polars can't hold a column of the answer ({error}); CAST it to VARCHAR") from error

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.table)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows as tuples."""
        for batch in self.table.to_batches():
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def _repr_html_(self) -> str:
        """Return a table of the first and the last rows, for a notebook."""
        from featurestore.notebook import ENDS, html_lines, html_table

        n, kinds = len(self), self.table.schema.types
        rows = list(QueryResult(self.table.slice(0, 2 * ENDS if n <= 2 * ENDS else ENDS)))
        if n > 2 * ENDS:
            rows += [("…",) * len(kinds), *QueryResult(self.table.slice(n - ENDS))]
        numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds]
        return html_table(self.columns, rows, numbers=numbers) + html_lines([counted(n, "row"), *self.notes])

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the answer as a list of tuples."""
        columns = [column.to_pylist() for column in self.table.columns]
        return list(zip(*columns, strict=True))


@dataclass(frozen=True)
class Answer:
    """The result of a query as a stream of batches, for results larger than memory."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    numbers: tuple[bool, ...] = ()  # the numeric columns, if the result was requested as text
    notes: tuple[str, ...] = ()  # what a reader has to know of the views, in one line each


def run_query(context: Context, query: str, parameters: Mapping[str, Any] | None = None) -> QueryResult:
    """Run a query on the store.

    Raises:
        QueryError: it is not a query, DuckDB refused it, or the result does not fit into memory.
    """
    with stream_query(context, query, parameters) as answer:
        return _collect(context, answer)


def _collect(context: Context, answer: Answer) -> QueryResult:
    free, n_bytes, batches = free_memory(), 0, []
    for batch in answer.batches:
        batches.append(batch)
        n_bytes += batch.nbytes
        if free is not None and n_bytes > free * 3 // 4:
            raise QueryError(
                f"the answer is larger than the memory that is free ({human_bytes(free)}); ask for less of it, or "
                f"write it to a file: {command_line('sql', context.root.path, 'QUERY', '--output', 'FILE.parquet')}"
            )
    return QueryResult(pa.Table.from_batches(batches, answer.schema), answer.notes)


Ask = Callable[..., QueryResult]  # with the arguments of `FeatureStore.sql`


@contextmanager
def query_snapshot(context: Context) -> Iterator[Ask]:
    """Yield a function that runs queries as `run_query` does, all of them on one copy of the catalog.

    A query that names a view over partitions, `duplicates` or the list of views has a copy of its own.
    """
    with open_query(context, " ".join(SNAPSHOT_VIEWS)) as opened, _thread_for(opened.connection) as thread:
        is_open = True

        def ask(query: str, /, **parameters: Any) -> QueryResult:
            if not is_open:
                raise QueryError("this snapshot is over; ask it within its `with` block, or take another one")
            if not is_of_snapshot(context.flow, query):
                return run_query(context, query, parameters)
            _refuse_parameters(_statement(query, context.flow), parameters)
            old = answer_table(opened.connection)
            drop = f"DROP TABLE IF EXISTS {old}"  # of the query before, however it ended
            thread.submit(opened.connection.execute, drop)
            return _collect(context, _stream(context, query, parameters, opened, thread))

        try:
            yield ask
        finally:
            is_open = False


@contextmanager
def stream_query(
    context: Context, query: str, parameters: Mapping[str, Any] | None = None, *, as_text: bool = False
) -> Iterator[Answer]:
    """Start a query; its batches can be read as long as the context is open.

    Args:
        context: of the store.
        query: one SQL query.
        parameters: the values of its parameters, like ``$artist``, by name.
        as_text: cast every value but BLOBs to DuckDB's text, for display.

    Raises:
        QueryError: it is not a single query, its parameters are others, or DuckDB refused it.
    """
    values = dict(parameters or {})
    _refuse_parameters(_statement(query, context.flow), values)
    if LIST_VIEWS.fullmatch(query):
        query = VIEW_LIST
    with open_query(context, query) as opened, _thread_for(opened.connection) as thread:
        yield _stream(context, query, values, opened, thread, as_text=as_text)


class Opened(NamedTuple):
    """A connection with views, and what a reader has to know of them, in one line each."""

    connection: duckdb.DuckDBPyConnection
    notes: tuple[str, ...]


def _stream(
    context: Context,
    query: str,
    values: Mapping[str, Any],
    opened: Opened,
    thread: ThreadPoolExecutor,
    *,
    as_text: bool = False,
) -> Answer:
    connection = opened.connection

    def run(work: Callable[[], T]) -> T:
        return _result(thread.submit(work), context, connection, query)

    reader, numbers = run(lambda: _reader(connection, query, values, as_text))
    schema = tidy_schema(reader.schema)
    return Answer(schema, _batches(reader, schema, run), numbers, opened.notes)


@contextmanager
def open_query(context: Context, text: str) -> Iterator[Opened]:
    """Open a private connection to a DuckDB in memory, locked down, with the views that ``text`` names.

    Queries of the catalog alone share a DuckDB, as long as the catalog stays the same.
    """
    if is_of_snapshot(context.flow, text) and can_keep(context.catalog):
        with kept_copy(context, text) as connection:
            yield Opened(connection, ())
        return
    with optional_scratch_folder() as folder, duckdb.connect() as connection:
        set_up(connection, folder)
        try:
            notes = make_views(context, connection, text, folder)
        except duckdb.Error as error:
            raise QueryError(explain(error, context.flow)) from None
        yield Opened(connection, notes)


@contextmanager
def _thread_for(connection: duckdb.DuckDBPyConnection) -> Iterator[ThreadPoolExecutor]:
    """Yield a thread for queries: while DuckDB works in the main thread, Python can't handle Ctrl-C.

    A query that still runs at the end of the block, because of Ctrl-C or an unread rest of the result, is stopped.
    """
    thread = ready_thread()
    try:
        yield thread
    finally:
        last = thread.submit(int)  # runs after pending work
        while not wait([last], timeout=0.05).done:
            connection.interrupt()  # repeatedly: an interrupt before the query starts is lost
        thread.shutdown()


def _result(future: Future[T], context: Context, connection: duckdb.DuckDBPyConnection, query: str) -> T:
    while not wait([future], timeout=0.05).done:
        pass  # Python notices a Ctrl-C that came right before a wait only when that wait has ended
    try:
        return future.result()
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # the last two come from Arrow, within a result
        context.catalog.kept = None  # DuckDB may accept no more statements
        raise QueryError(explain(error, context.flow) + column_hint(context, connection, query, error)) from None


def _reader(
    connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, Any], as_text: bool
) -> tuple[pa.RecordBatchReader, tuple[bool, ...]]:
    asked = connection.sql(query, params=dict(values)) if values else connection.sql(query)
    relation = texts(asked) if as_text else exact_columns(asked, keep_in=connection)
    wide = any(kind.id in WIDE for kind in asked.types)
    return relation.to_arrow_reader(WIDE_ROWS if wide else ROWS), tuple(kind.id in NUMBERS for kind in asked.types)


def _batches(
    reader: pa.RecordBatchReader, schema: pa.Schema, run: Callable[[Callable[[], Any]], Any]
) -> Iterator[pa.RecordBatch]:
    while (batch := run(lambda: next(reader, None))) is not None:
        arrays = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _loses_whole_numbers(column: pa.ChunkedArray) -> bool:
    """Return whether pandas would turn whole numbers beside NULL into floats and lose digits."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return any(_loses_whole_numbers(pa.chunked_array([part.flatten()])) for part in column.chunks)
    if not pa.types.is_integer(kind) or kind.bit_width < 64 or not column.null_count:
        return False
    found = pc.min_max(column)
    return any(value is not None and abs(value) > EXACT_FLOATS for value in found.as_py().values())


def tidy_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema with plain types and unique names."""
    plain = {pa.large_string(): pa.string()}
    names: list[str] = []
    for name in schema.names:
        free, n = name, 0
        while free in names or (n and free in schema.names):
            n += 1
            free = f"{name}_{n}"
        names.append(free)
    return pa.schema([(name, plain.get(field.type, field.type)) for name, field in zip(names, schema, strict=True)])


def _statement(query: str, flow: Sequence[Stage]) -> duckdb.Statement:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(explain(error, flow) + beginning_hint(query, error)) from None
    if not statements:
        raise QueryError('there is no question in this; ask one like "SELECT count(*) FROM images"')
    if len(statements) > 1:
        raise QueryError(f"sql takes one query, and this is {len(statements)}; ask them one after the other")
    kind = statements[0].type
    if kind not in QUESTIONS:
        raise QueryError(f"sql only answers questions, and this is {kind.name}; begin with {BEGINNINGS}")
    return statements[0]


def _refuse_parameters(statement: duckdb.Statement, values: Mapping[str, Any]) -> None:
    wanted = sorted(statement.named_parameters)
    known = {name.lower() for name in wanted}  # as DuckDB compares them
    given = {name.lower() for name in values}
    if missing := [name for name in wanted if name.lower() not in given]:
        name = missing[0]
        raise QueryError(f"the query needs a value for ${name}; give it with -p {name}=VALUE (in Python {name}=VALUE)")
    if unknown := [name for name in values if name.lower() not in known]:
        has = f"it has {', '.join(f'${name}' for name in wanted)}" if wanted else "it has none"
        raise QueryError(f"the query has no parameter ${unknown[0]}; {has}")
