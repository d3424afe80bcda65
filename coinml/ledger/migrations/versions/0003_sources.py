"""Record which source brought a video, and which source each attempt asked."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ADDED = {
    "videos": {"source": sa.String(200), "url": sa.Text()},
    "attempts": {
        "source": sa.String(200),
        "url": sa.Text(),
        "next_attempt_at": sa.Float(),
        "credentials": sa.String(16),
    },
}


def upgrade() -> None:
    """Add the columns, unknown for existing rows."""
    for table, columns in _ADDED.items():
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind))


def downgrade() -> None:
    """Drop the columns."""
    for table, columns in _ADDED.items():
        for name in columns:
            op.drop_column(table, name)
