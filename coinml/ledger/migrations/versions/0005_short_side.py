"""Add the shorter side of a video's pictures."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, unknown for existing rows."""
    op.add_column("videos", sa.Column("short_side_px", sa.Integer()))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("videos", "short_side_px")
