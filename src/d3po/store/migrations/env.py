"""Alembic's environment script: runs the migrations on the connection, and in the transaction, that `upgrade` passes.

To write a new migration, change `tables.py` and let `alembic.autogenerate` compare; a test fails until models and migrations agree.
"""

from alembic import context

from d3po.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
