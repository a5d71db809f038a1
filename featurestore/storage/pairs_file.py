"""The file of the pairs that were found last: made by searches, disposable, and never edited.

``pairs/VARIANT-KEY.parquet`` has a row for each two images that show the same, and in its metadata the payloads of the
codes that were compared. KEY depends on both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.errors import CorruptFile
from featurestore.storage.root import PAIRS, Root
from featurestore.storage.writer import Writer
from featurestore.system import readable

FORMAT = 1
METADATA = b"featurestore"
PAIR_SCHEMA = pa.schema(
    [("query_id", pa.int64()), ("ref_id", pa.int64()), ("inliers", pa.int32()), ("score", pa.float64())]
)


@dataclass(frozen=True)
class FoundPairs:
    """Pairs of images that show the same.

    Args:
        variant: of the codes that were compared.
        chunks: the payload of each chunk of codes that was compared.
        rows: of `PAIR_SCHEMA`, with the numbers of the images.
    """

    variant: str
    chunks: Mapping[int, str]
    rows: pa.Table

    @property
    def head(self) -> str:
        """The origin of the pairs, as JSON in the metadata of the file."""
        chunks = {str(chunk_id): payload for chunk_id, payload in sorted(self.chunks.items())}
        return json.dumps({"format": FORMAT, "variant": self.variant, "chunks": chunks})

    @property
    def name(self) -> str:
        """The name of its file."""
        digest = hashlib.sha256(self.head.encode())
        for column in self.rows.columns:
            digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())
        return f"{PAIRS}/{self.variant}-{digest.hexdigest()[:16]}.parquet"


def each_once(rows: Sequence[tuple[int, int, int, float]]) -> pa.Table:
    """Return a row for each two images, in the order of their numbers: the one with most inliers, then votes."""
    columns = zip(*rows, strict=True) if rows else [()] * len(PAIR_SCHEMA)
    table = pa.table([pa.array(c, field.type) for c, field in zip(columns, PAIR_SCHEMA, strict=True)], PAIR_SCHEMA)
    query, ref, inliers, score = (column.to_numpy() for column in table.columns)
    one, other = np.minimum(query, ref), np.maximum(query, ref)
    order = np.lexsort((query, -score, -inliers.astype(np.int64), other, one))
    one, other = one[order], other[order]
    first = np.ones(len(order), bool)
    first[1:] = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    return table.take(pa.array(order[first]))


def write_pairs_file(writer: Writer, found: FoundPairs) -> None:
    """Write the pairs, and remove those that were found before with the same variant.

    Raises:
        NotEnoughSpace: the disk is full; the file that was there stays.
        StoreBusy: another process has taken over.
    """
    rows = found.rows.replace_schema_metadata({METADATA: found.head})
    with writer.publishing(found.name) as path:
        pq.write_table(rows, path, compression="zstd", write_page_checksum=True)
    for other in writer.files(PAIRS, ""):
        if other.startswith(f"{PAIRS}/{found.variant}-") and other != found.name:
            writer.remove(other)


def find_pairs_file(root: Root, variant: str) -> str | None:
    """Return the name of the file of a variant; None if there is none."""
    names = root.listing(PAIRS, ".parquet")[0]
    return next((name for name in reversed(names) if name.startswith(f"{PAIRS}/{variant}-")), None)


def read_pairs_file(root: Root, name: str) -> FoundPairs:
    """Read a file of pairs.

    Raises:
        CorruptFile: it is damaged, or of another format.
        UnreadableFile: it can't be read.
    """
    path = root.local(name)
    try:
        with readable(path), path.open("rb") as file:
            rows = pq.read_table(file, page_checksum_verification=True)
        head = json.loads(rows.schema.metadata[METADATA])
        if head["format"] != FORMAT or not rows.schema.equals(PAIR_SCHEMA):
            raise CorruptFile(f"{name} is no file of pairs of format {FORMAT}")
        chunks = {int(chunk_id): str(payload) for chunk_id, payload in head["chunks"].items()}
        found = FoundPairs(str(head["variant"]), chunks, rows.replace_schema_metadata(None))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise CorruptFile(f"{name} can't be read ({str(error).splitlines()[0]})") from error
    if found.name != name:
        raise CorruptFile(f"{name} has not the content that its name stands for")
    return found
