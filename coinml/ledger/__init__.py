"""The durable record of each video's state and attempts (SQLite or PostgreSQL)."""

from coinml.ledger.ledger import Ledger
from coinml.ledger.queries import downloader_version
from coinml.ledger.records import (
    DOWNLOADED,
    PENDING,
    Attempt,
    AttemptRow,
    Counts,
    FileFacts,
    LedgerRow,
    Overall,
    Status,
)
from coinml.runtime.process_identity import new_owner

__all__ = [
    "DOWNLOADED",
    "PENDING",
    "Attempt",
    "AttemptRow",
    "Counts",
    "FileFacts",
    "Ledger",
    "LedgerRow",
    "Overall",
    "Status",
    "downloader_version",
    "new_owner",
]
