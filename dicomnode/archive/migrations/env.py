"""Run by Alembic: applies the migrations on the connection that `Database.migrate` gives."""

from alembic import context

from dicomnode.archive import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
