"""The ledger's tables. Times are seconds since the epoch (UTC), the same on every database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

HEAD = "0005"
"""The newest migration; a database at this version is opened without Alembic."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

videos = Table(
    "videos",
    metadata,
    Column("dataset", String(100), primary_key=True),
    Column("video_id", String(300), primary_key=True),
    # From the annotations.
    Column("label", Text, nullable=False),
    Column("subset", String(20), nullable=False),
    Column("split", String(20), nullable=False),
    Column("duration_s", Float),
    # "pending", "downloaded", or the fault of the last attempt.
    Column("state", String(20), nullable=False, server_default="pending"),
    Column("message", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", Float),
    Column("updated_at", Float),
    # In use at the last attempt: another yt-dlp or other credentials make some faults due.
    Column("tool_version", String(50)),
    Column("credentials", String(16)),
    # The file.
    Column("origin", String(20)),
    Column("path", Text),
    Column("size_bytes", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("sha256", String(64)),
    Column("media_duration_s", Float),
    Column("short_side_px", Integer),
    Column("title", Text),
    # Where it came from: the name of the source (as in `sources`), and the URL without credentials.
    Column("source", String(200)),
    Column("url", Text),
    # The lease.
    Column("lease_owner", Text),
    Column("lease_until", Float),
    Index(None, "dataset", "state", "next_attempt_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("dataset", String(100), nullable=False),
    Column("video_id", String(300), nullable=False),
    Column("run_id", String(100), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("message", Text),
    Column("rule", String(20)),
    Column("size_bytes", BigInteger),
    Column("tool_version", String(50)),
    # Which source was asked, and when it may be asked for this video again.
    Column("source", String(200)),
    Column("url", Text),
    Column("next_attempt_at", Float),
    Column("credentials", String(16)),
    Index(None, "dataset", "video_id"),
)

sources = Table(
    "sources",
    metadata,
    Column("source", String(200), primary_key=True),
    # The token bucket: when it is full again.
    Column("full_at", Float, nullable=False, server_default="0"),
    # The circuit breaker.
    Column("blocked_until", Float),
    Column("blocked_since", Float),
    Column("reason", Text),
    Column("strikes", Integer, nullable=False, server_default="0"),
    Column("probe_owner", Text),
    Column("probe_until", Float),
)

datasets = Table(
    "datasets",
    metadata,
    Column("dataset", String(100), primary_key=True),
    # The folder or annotation file that it is read from (`origins.origin_of`).
    Column("origin", Text, nullable=False),
)

CLOCK_SLACK_S = 3600.0
"""A row that was written later than so long from now was written by a clock that was ahead."""

CHUNK = 500
"""Ids per statement: databases limit the parameters of a statement."""


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Ids in chunks of `CHUNK`."""
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


def seconds(moment: datetime | None) -> float:
    """A time in seconds since the epoch, as the tables store it; None: now."""
    return time.time() if moment is None else moment.timestamp()
