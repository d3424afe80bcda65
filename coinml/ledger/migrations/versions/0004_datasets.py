"""Record which folder or file each dataset is read from."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; datasets of before enter it when they are next registered."""
    op.create_table(
        "datasets",
        sa.Column("dataset", sa.String(100), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("dataset", name="pk_datasets"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("datasets")
