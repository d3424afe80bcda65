"""Add the title of a video."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the title, unknown for existing rows."""
    op.add_column("videos", sa.Column("title", sa.Text()))


def downgrade() -> None:
    """Drop the titles."""
    op.drop_column("videos", "title")
