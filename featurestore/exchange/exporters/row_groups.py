"""Parquet files whose row groups are encoded by threads: the same bytes as one `pyarrow.parquet.ParquetWriter` writes.

Each row group is encoded as a file of its own, in memory. The data of these files follow one another in the result, and
`parquet_footer` joins their footers. Arrow encodes and compresses without Python's lock, so threads use all cores and
nothing has to be sent to another process.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import IO

import pyarrow as pa

from featurestore.engines import all_cores
from featurestore.exchange.exporters.parquet_footer import MAGIC, Footer
from featurestore.query import write_parquet
from featurestore.system import held_back

MOST_THREADS = 8  # each takes some 90 MB


def write_row_groups(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    file: IO[bytes],
    *,
    prepare: Callable[[pa.Table], pa.Table] | None = None,
    dictionary: Sequence[str],
    statistics: bool | Sequence[str] = True,
    threads: int | None = None,
) -> None:
    """Write a Parquet file as `write_parquet` does, a row group for each table, encoded by threads.

    Args:
        tables: drawn in this thread, one more at a time than there are threads.
        schema: of the file.
        file: open for writing.
        prepare: makes a table of the schema of each of ``tables``, in a thread; None where they have it already.
        dictionary: the columns that may have a dictionary.
        statistics: which columns have a least and a greatest value; True is all of them.
        threads: None is one for each core, but at most `MOST_THREADS`.
    """
    encode = partial(_encode, schema=schema, prepare=prepare, dictionary=dictionary, statistics=statistics)
    file.write(MAGIC)
    footer, at = Footer(), len(MAGIC)
    for data in _in_order(encode, tables, threads or min(all_cores(), MOST_THREADS)):
        body = footer.append(data, at)
        at += file.write(body)
    file.write(footer.data())


def _encode(
    table: pa.Table,
    *,
    schema: pa.Schema,
    prepare: Callable[[pa.Table], pa.Table] | None,
    dictionary: Sequence[str],
    statistics: bool | Sequence[str],
) -> memoryview:
    target = io.BytesIO()
    made = prepare(table) if prepare is not None else table
    write_parquet([made], schema, target, dictionary=dictionary, statistics=statistics)
    return target.getbuffer()


def _in_order(
    encode: Callable[[pa.Table], memoryview], tables: Iterable[pa.Table], threads: int
) -> Iterator[memoryview]:
    """Yield what ``encode`` makes of each table, in their order."""
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[memoryview]]()
    try:
        for table in tables:
            with held_back():  # a pool forgets a thread if Ctrl-C arrives while it starts
                waiting.append(pool.submit(encode, table))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
