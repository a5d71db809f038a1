"""The coverage of a store by its index: which chunks have codes and words, and which of them the index file has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from duckdb import DuckDBPyConnection

from featurestore.catalog import ChunkState, Context, HeldCatalog, Step, chunk_states, resolve
from featurestore.stages import INDEX, TransformStage, codes_of
from featurestore.storage import IndexHeader, Place, find_index_header

OLD = 0.1  # of the images that the file may lack before it is made again


@dataclass(frozen=True)
class Chunk:
    """A chunk with codes.

    Args:
        first: its first ``image_id``.
        n_images: in it.
        key: what the index has of it; None if its words have not been computed.
        codes: its partition of codes.
        words: its partition of words, if they have been computed.
    """

    chunk_id: int
    first: int
    n_images: int
    key: str | None
    codes: Place
    words: Place | None


@dataclass(frozen=True)
class Coverage:
    """The chunks of a store, and its index file.

    Args:
        stage: that makes the words.
        variant: of it.
        model: the file of its model.
        chunks: those with codes, by their ids.
        header: of the file; None if there is none.
    """

    stage: TransformStage
    variant: str
    model: Path
    chunks: Mapping[int, Chunk]
    header: IndexHeader | None

    @cached_property
    def in_file(self) -> frozenset[int]:
        """The chunks that the file has as they are now."""
        there = {} if self.header is None else self.header.chunks
        return frozenset(i for i, chunk in self.chunks.items() if chunk.key is not None and there.get(i) == chunk.key)

    @property
    def n_images(self) -> int:
        """Images of chunks with codes."""
        return sum(chunk.n_images for chunk in self.chunks.values())

    @property
    def n_in_file(self) -> int:
        """Images of chunks that the file has."""
        return sum(self.chunks[i].n_images for i in self.in_file)

    @property
    def old(self) -> bool:
        """Whether the file has to be made again, and can be: it lacks more than `OLD` of the images with words."""
        with_words = sum(chunk.n_images for chunk in self.chunks.values() if chunk.words is not None)
        gone = 0 if self.header is None else len(self.header.chunks) - len(self.in_file)
        n_gone = gone * max((chunk.n_images for chunk in self.chunks.values()), default=0)
        return with_words > 0 and (self.header is None or with_words - self.n_in_file + n_gone > OLD * with_words)


def index_coverage(context: Context, connection: DuckDBPyConnection, steps: Sequence[Step]) -> Coverage | None:
    """Return the coverage of a store by its index; None if its recipe has no index, or the model is not fitted."""
    fit, words = (next((s for s in steps if s.stage.name == stage.name), None) for stage in INDEX)
    if fit is None or words is None or fit.current_model is None or words.variant is None:
        return None
    assert isinstance(words.stage, TransformStage)
    codes = codes_of(context.flow).name
    by_stage: dict[str, dict[int, ChunkState]] = {codes: {}, words.stage.name: {}}
    for state in chunk_states(connection, steps):
        if state.stage in by_stage and state.path and state.current and state.upstream_current and not state.pruned:
            by_stage[state.stage][state.chunk_id] = state
    chunks = {
        chunk_id: _chunk(context, state, by_stage[words.stage.name].get(chunk_id))
        for chunk_id, state in by_stage[codes].items()
    }
    # faiss trusts what it reads, so that the file of an untrusted store is never opened
    trusted = not isinstance(context.catalog, HeldCatalog)
    header = find_index_header(context.root, words.variant) if trusted else None
    return Coverage(words.stage, words.variant, context.root.local(fit.current_model.path), chunks, header)


def _chunk(context: Context, codes: ChunkState, words: ChunkState | None) -> Chunk:
    at = context.root.at
    return Chunk(
        codes.chunk_id,
        codes.first_image_id,
        codes.n_images,
        None if words is None else f"{words.payload}-{words.input_payload}",
        at(codes.path or ""),
        None if words is None else at(words.path or ""),
    )


def coverage_of(context: Context) -> Coverage | None:
    """Return `index_coverage` of the current recipe."""
    with context.catalog.reading() as connection:
        return index_coverage(context, connection, resolve(connection, context.flow))
