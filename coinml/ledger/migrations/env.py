"""Runs Alembic's migrations on the ledger's connection, in its transaction."""

from alembic import context

from coinml.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
