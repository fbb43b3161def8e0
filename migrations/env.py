"""Environment of Alembic, using the connection and transaction that ``store.schema`` passes."""

from alembic import context

from zsic_index.store.tables import METADATA

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run 'zsic-index db upgrade': migrations run inside the store's transaction")

context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
