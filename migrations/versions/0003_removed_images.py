"""Images that left the dataset: the ingest that removed each.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; so far no image has been removed."""
    op.add_column("images", sa.Column("removed_by", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("images", "removed_by")
