"""The first catalog.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "chunks",
        sa.Column("chunk_id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("first_image_id", sa.BigInteger(), nullable=False),
        sa.Column("n_images", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("chunk_id"),
    )
    op.create_table(
        "images",
        sa.Column("image_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("chunk_id", sa.Integer(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("subset", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("image_id"),
    )
    op.create_table(
        "ingests",
        sa.Column("ingest_id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("checksum", sa.String(), nullable=False),
        sa.Column("n_new", sa.Integer(), nullable=False),
        sa.Column("n_changed", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("ingest_id"),
    )
    op.create_table(
        "models",
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("partial", sa.Boolean(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("checksum", sa.String(), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("n_images", sa.Integer(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("model_id"),
    )
    op.create_table(
        "partitions",
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("chunk_id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("input_payload", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("checksum", sa.String(), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("n_images", sa.Integer(), nullable=False),
        sa.Column("n_descriptors", sa.BigInteger(), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("n_clipped", sa.BigInteger(), nullable=True),
        sa.Column("pruned", sa.Boolean(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("stage", "variant", "chunk_id"),
    )
    op.create_table(
        "results",
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("chunk_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("n_descriptors", sa.Integer(), nullable=False),
        sa.Column("pixels", sa.BigInteger(), nullable=True),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("started", sa.DateTime(), nullable=False),
        sa.Column("ended", sa.DateTime(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=True),
        sa.Column("n_chunks", sa.Integer(), nullable=False),
        sa.Column("n_images", sa.Integer(), nullable=False),
        sa.Column("n_descriptors", sa.BigInteger(), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_table(
        "training_images",
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("image_id", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "variants",
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("reads_variant", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("variant"),
    )


def downgrade() -> None:
    """Drop every table."""
    for table in (
        "variants",
        "training_images",
        "runs",
        "results",
        "partitions",
        "models",
        "ingests",
        "images",
        "chunks",
    ):
        op.drop_table(table)
