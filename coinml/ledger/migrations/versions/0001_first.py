"""The first tables: videos, attempts, sources."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "videos",
        sa.Column("dataset", sa.String(100), nullable=False),
        sa.Column("video_id", sa.String(300), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("subset", sa.String(20), nullable=False),
        sa.Column("split", sa.String(20), nullable=False),
        sa.Column("duration_s", sa.Float()),
        sa.Column("state", sa.String(20), nullable=False, server_default="pending"),
        sa.Column("message", sa.Text()),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("next_attempt_at", sa.Float()),
        sa.Column("updated_at", sa.Float()),
        sa.Column("tool_version", sa.String(50)),
        sa.Column("credentials", sa.String(16)),
        sa.Column("origin", sa.String(20)),
        sa.Column("path", sa.Text()),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("mtime_ns", sa.BigInteger()),
        sa.Column("sha256", sa.String(64)),
        sa.Column("media_duration_s", sa.Float()),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until", sa.Float()),
        sa.PrimaryKeyConstraint("dataset", "video_id", name="pk_videos"),
    )
    op.create_index(
        "ix_videos_dataset_state_next_attempt_at",
        "videos",
        ["dataset", "state", "next_attempt_at"],
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dataset", sa.String(100), nullable=False),
        sa.Column("video_id", sa.String(300), nullable=False),
        sa.Column("run_id", sa.String(100), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("message", sa.Text()),
        sa.Column("rule", sa.String(20)),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("tool_version", sa.String(50)),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
    )
    op.create_index("ix_attempts_dataset_video_id", "attempts", ["dataset", "video_id"])
    op.create_table(
        "sources",
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("full_at", sa.Float(), nullable=False, server_default="0"),
        sa.Column("blocked_until", sa.Float()),
        sa.Column("blocked_since", sa.Float()),
        sa.Column("reason", sa.Text()),
        sa.Column("strikes", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("probe_owner", sa.Text()),
        sa.Column("probe_until", sa.Float()),
        sa.PrimaryKeyConstraint("source", name="pk_sources"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("sources", "attempts", "videos"):
        op.drop_table(table)
