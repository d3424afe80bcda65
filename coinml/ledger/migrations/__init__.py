"""Alembic's migrations of the ledger, applied by `coinml.ledger` when it is opened."""
