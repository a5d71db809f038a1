"""The catalog's tables, as SQLAlchemy declarative models.

The catalog is an index: all of it but ``runs`` and ``dataset_files`` can be rebuilt from the store's folders. DuckDB
checks no foreign keys here and has no secondary indexes (both break updates and most ALTERs); keys are made by the
client. The dataset CSV's own columns live in a table outside of these models, `DATASET_COLUMNS`, because every dataset
has its own. Migrations make the tables, and a test compares them with these models; no statement needs them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, DateTime, Float, Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The base of all models."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute
        int: Integer,
        str: String,
        float: Float,
        bool: Boolean,
        datetime: DateTime,
        dict[str, Any]: JSON,
    }


class Ingest(Base):
    """One ingest of the dataset: a file ``dataset/000001.parquet`` with the rows that it added or changed."""

    __tablename__ = "ingests"
    ingest_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    path: Mapped[str]
    checksum: Mapped[str]  # SHA-256 of the file
    n_new: Mapped[int]
    n_changed: Mapped[int]


class DatasetFile(Base):
    """Size, time and digest of a dataset file when it was last read, to notice changes. No file can restore it."""

    __tablename__ = "dataset_files"
    path: Mapped[str] = mapped_column(primary_key=True)
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str]  # SHA-256 of its content


class Image(Base):
    """One image of the dataset, or one that has left it."""

    __tablename__ = "images"
    image_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    chunk_id: Mapped[int]
    filename: Mapped[str]
    subset: Mapped[str]
    removed_by: Mapped[int | None]  # the ingest that removed it; None: it is in the dataset


class Chunk(Base):
    """A fixed range of images; its members never change."""

    __tablename__ = "chunks"
    chunk_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    first_image_id: Mapped[int] = mapped_column(BigInteger)
    n_images: Mapped[int]
    digest: Mapped[str]  # of its image list: what extract reads


class Variant(Base):
    """The identity of a stage's parameters and of everything upstream."""

    __tablename__ = "variants"
    variant: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str]
    version: Mapped[int]
    parameters: Mapped[dict[str, Any]]
    reads_variant: Mapped[str]
    model_id: Mapped[str | None]


class Run(Base):
    """One execution of a stage."""

    __tablename__ = "runs"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str]
    variant: Mapped[str]
    parameters: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]
    host: Mapped[str]
    pid: Mapped[int]
    workers: Mapped[int]
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    outcome: Mapped[str]  # see `table_rows.Outcome`
    message: Mapped[str | None]
    n_chunks: Mapped[int]
    n_images: Mapped[int]
    n_descriptors: Mapped[int] = mapped_column(BigInteger)
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]


class Partition(Base):
    """A committed file: the rows of one chunk at one chunk stage. The chunk is done if this record exists."""

    __tablename__ = "partitions"
    stage: Mapped[str] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    chunk_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    payload: Mapped[str]  # digest of the rows' values
    input_payload: Mapped[str]  # of the partition it was made from; extract: the digest of the chunk's image list
    path: Mapped[str]
    checksum: Mapped[str]  # SHA-256 of the file
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    n_images: Mapped[int]
    n_descriptors: Mapped[int] = mapped_column(BigInteger)
    dim: Mapped[int]  # values in a descriptor
    n_clipped: Mapped[int | None] = mapped_column(BigInteger)
    pruned: Mapped[bool]
    origin: Mapped[str]  # see `storage.Origin`
    versions: Mapped[dict[str, Any]]
    etag: Mapped[str | None]  # of its object, in an object store; None: it is a file, or none is known


class Result(Base):
    """The result of one stage for one image, without the descriptors."""

    __tablename__ = "results"
    stage: Mapped[str] = mapped_column()
    variant: Mapped[str] = mapped_column()
    chunk_id: Mapped[int]
    image_id: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    error: Mapped[str | None]
    n_descriptors: Mapped[int]
    pixels: Mapped[int | None] = mapped_column(BigInteger)  # width x height, where known
    # The mapper needs a key, the table must not have one: an index over 50 million rows would cost more than all
    # else, and a partition's rows are only ever replaced together.
    __mapper_args__ = {"primary_key": [stage, variant, image_id]}  # noqa: RUF012


class Model(Base):
    """A fitted model of a fit stage."""

    __tablename__ = "models"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str]
    variant: Mapped[str]
    parent_id: Mapped[str | None]
    generation: Mapped[int]  # 0 without a parent; the current model has the highest
    partial: Mapped[bool]  # fitted before all chunks were finished
    path: Mapped[str]
    checksum: Mapped[str]
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    n_images: Mapped[int]
    summary: Mapped[dict[str, Any]]


class TrainingImage(Base):
    """An image that a model learnt from; those of its parents are included."""

    __tablename__ = "training_images"
    model_id: Mapped[str] = mapped_column()
    image_id: Mapped[int] = mapped_column(BigInteger)
    __mapper_args__ = {"primary_key": [model_id, image_id]}  # noqa: RUF012
