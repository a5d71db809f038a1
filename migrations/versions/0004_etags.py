"""ETags of partitions in an object store.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of partitions that are recorded already none is known."""
    op.add_column("partitions", sa.Column("etag", sa.String(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("partitions", "etag")
